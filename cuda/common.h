// What every native file shares: export macro, status codes, vector types, choice of the instruction set at run time.
//
// The libraries are plain C over raw pointers (no torch, no Python headers), so one build serves every version of both.
// One binary holds each hot loop several times: a plain path (any CPU), AVX2+FMA and AVX-512. The loops are written once, in
// NAME_kernels.inl, over vectors of FOURD_WIDTH floats, and included once per instruction set by instruction_sets.inl.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(_WIN32)
#define FOURD_EXPORT extern "C" __declspec(dllexport)
#else
#define FOURD_EXPORT extern "C" __attribute__((visibility("default")))
#endif

// For functions that the CPU and the CUDA kernels share.
#if defined(__CUDACC__)
#define FOURD_SHARED __host__ __device__ inline
#else
#define FOURD_SHARED inline
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define FOURD_X86 1
#include <immintrin.h>
#else
#define FOURD_X86 0
#endif

// Compile what stands between BEGIN and END for one instruction set, whatever the command line says.
#define FOURD_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define FOURD_BEGIN_TARGET(list) \
  FOURD_PRAGMA(clang attribute push(__attribute__((target(list))), apply_to = function))
#define FOURD_END_TARGET FOURD_PRAGMA(clang attribute pop)
#else
#define FOURD_BEGIN_TARGET(list) FOURD_PRAGMA(GCC push_options) FOURD_PRAGMA(GCC target(list))
#define FOURD_END_TARGET FOURD_PRAGMA(GCC pop_options)
#endif
#define FOURD_AVX2 "avx2,fma"
#define FOURD_AVX512 "avx2,fma,avx512f,avx512dq,avx512bw,avx512vl"

// Lanes of two vectors of four, numbered 0..7.
#if defined(__clang__) || __GNUC__ >= 12
#define FOURD_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define FOURD_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (V4I){i, j, k, l})
#endif

namespace fourd {

// Values that the C entry points return.
enum Status : int { kOk = 0, kOutOfMemory = 1, kBadIndex = 2, kBadArgument = 3 };

// Instruction sets, in rising order; `fourd_instruction_set` reports the one in use.
enum InstructionSet : int { kPlain = 0, kAvx2 = 1, kAvx512 = 2 };
int instruction_set();

// Are all indices in 0..size-1? One unsigned comparison each, negative ones being huge.
inline bool indices_fit(const int32_t* indices, int64_t count, int64_t size) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; i++) largest = largest > uint32_t(indices[i]) ? largest : uint32_t(indices[i]);
  return count == 0 || int64_t(largest) < size;
}

inline int max_threads(int asked) { return asked < 1 ? 1 : (asked > 256 ? 256 : asked); }

// A growing, 64-byte aligned buffer whose contents are NOT kept when it grows: scratch memory reused between calls.
template <typename T>
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { release(); }

  T* reserve(size_t count) {
    if (count > capacity_) {
      release();
      const size_t wanted = count + count / 4 + 64;
      data_ = static_cast<T*>(::operator new(wanted * sizeof(T), std::align_val_t(64)));
      capacity_ = wanted;
    }
    return data_;
  }

  // As reserve, but the first `used` elements survive.
  T* grow(size_t count, size_t used) {
    if (count > capacity_) {
      const size_t wanted = count + count / 2 + 64;
      T* bigger = static_cast<T*>(::operator new(wanted * sizeof(T), std::align_val_t(64)));
      if (used) std::memcpy(static_cast<void*>(bigger), data_, used * sizeof(T));
      release();
      data_ = bigger;
      capacity_ = wanted;
    }
    return data_;
  }

  T* data() const { return data_; }
  size_t capacity() const { return capacity_; }

 private:
  void release() {
    if (data_) ::operator delete(static_cast<void*>(data_), std::align_val_t(64));
    data_ = nullptr;
    capacity_ = 0;
  }
  T* data_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace fourd
