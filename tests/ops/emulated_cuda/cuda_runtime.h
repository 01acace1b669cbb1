// CUDA's language on a CPU, as far as the kernels of cuda/ use it: so that they can be run and tested without a GPU.
//
// A block's threads are fibres of one real thread that change places only where CUDA's threads wait for each other, so a kernel runs as
// its author thinks of it, though it says nothing of races. Blocks run one after another. Slow: for small pictures.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#define FOURD_EMULATED 1
#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __restrict__ __restrict

typedef void* cudaStream_t;
enum cudaError_t { cudaSuccess = 0 };

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

namespace emulated {

constexpr size_t kStack = 128 * 1024;

// Threads that wait for each other; `arrived` counts those that do, of `alive` ones.
struct Meeting {
  int alive = 0, arrived = 0;
  unsigned round = 0;
};

struct Fibre {
  ucontext_t start;
  jmp_buf place;
  std::vector<char> stack = std::vector<char>(kStack);
  dim3 thread;
  int index = 0;
  bool started = false, ended = false;
};

struct Block {
  std::vector<Fibre> fibres;
  std::vector<Meeting> warps;
  std::vector<unsigned> warp_any, lanes;
  Meeting all;
  int count = 0;
  Fibre* current = nullptr;
  jmp_buf scheduler;
  ucontext_t main;
  dim3 index, size, grid;
  void (*body)(void*) = nullptr;
  void* arguments = nullptr;
};

inline Block& block() {
  static Block b;
  return b;
}

inline void yield() {
  Block& b = block();
  if (_setjmp(b.current->place) == 0) _longjmp(b.scheduler, 1);
}

template <typename F>
void meet(Meeting* m, F&& by_the_last) {
  const unsigned round = m->round;
  if (++m->arrived == m->alive) {
    by_the_last();
    m->arrived = 0;
    m->round++;
    return;
  }
  while (m->round == round) yield();
}
inline void meet(Meeting* m) {
  meet(m, [] {});
}

inline void leave(Meeting* m) {
  m->alive--;
  if (m->alive > 0 && m->arrived == m->alive) {
    m->arrived = 0;
    m->round++;
  }
}

inline void enter() {
  Block& b = block();
  b.body(b.arguments);
  Fibre* f = b.current;
  f->ended = true;
  leave(&b.all);
  leave(&b.warps[size_t(f->index / 32)]);
  _longjmp(b.scheduler, 1);
}

inline void run_block() {
  Block& b = block();
  const int threads = int(b.size.x * b.size.y * b.size.z);
  if (int(b.fibres.size()) < threads) b.fibres = std::vector<Fibre>(size_t(threads));
  b.warps.assign(size_t(threads + 31) / 32, {});
  b.warp_any.assign(b.warps.size(), 0);
  b.lanes.assign(b.warps.size() * 32, 0);
  b.all = {};
  b.count = 0;
  for (int i = 0; i < threads; i++) {
    Fibre& f = b.fibres[size_t(i)];
    f.index = i;
    f.thread = dim3(unsigned(i) % b.size.x, unsigned(i) / b.size.x % b.size.y, unsigned(i) / (b.size.x * b.size.y));
    f.started = f.ended = false;
    b.all.alive++;
    b.warps[size_t(i / 32)].alive++;
  }
  static int at, left;
  for (left = threads; left > 0;) {
    left = 0;
    for (at = 0; at < threads; at++) {
      Fibre& f = b.fibres[size_t(at)];
      if (f.ended) continue;
      left++;
      b.current = &f;
      if (_setjmp(b.scheduler) != 0) continue;
      if (f.started) _longjmp(f.place, 1);
      f.started = true;
      getcontext(&f.start);
      f.start.uc_stack.ss_sp = f.stack.data();
      f.start.uc_stack.ss_size = kStack;
      f.start.uc_link = nullptr;
      makecontext(&f.start, enter, 0);
      setcontext(&f.start);
    }
  }
}

template <typename F>
void launch(dim3 grid, dim3 size, F&& body) {
  Block& b = block();
  b.grid = grid;
  b.size = size;
  b.body = [](void* f) { (*static_cast<F*>(f))(); };
  b.arguments = &body;
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        b.index = dim3(x, y, z);
        run_block();
      }
}

inline Meeting* warp() { return &block().warps[size_t(block().current->index / 32)]; }

}  // namespace emulated

#define threadIdx (emulated::block().current->thread)
#define blockIdx (emulated::block().index)
#define blockDim (emulated::block().size)
#define gridDim (emulated::block().grid)
#define FOURD_LAUNCH(kernel, grid, size, stream, ...) emulated::launch(dim3(grid), dim3(size), [=] { (kernel)(__VA_ARGS__); })

inline void __syncthreads() { emulated::meet(&emulated::block().all); }

inline int __syncthreads_count(int value) {
  emulated::Block& b = emulated::block();
  b.count += value != 0;
  emulated::meet(&b.all);
  const int result = b.count;
  emulated::meet(&b.all, [&] { b.count = 0; });
  return result;
}

inline int __any_sync(unsigned, int value) {
  emulated::Block& b = emulated::block();
  const size_t w = size_t(b.current->index / 32);
  b.warp_any[w] |= value != 0;
  emulated::meet(emulated::warp());
  const int result = int(b.warp_any[w]);
  emulated::meet(emulated::warp(), [&] { b.warp_any[w] = 0; });
  return result;
}

template <typename T>
T __shfl_xor_sync(unsigned, T value, int step) {
  static_assert(sizeof(T) == 4, "four bytes");
  emulated::Block& b = emulated::block();
  const size_t lane = size_t(b.current->index);
  std::memcpy(&b.lanes[lane], &value, 4);
  emulated::meet(emulated::warp());
  T result;
  std::memcpy(&result, &b.lanes[lane ^ size_t(step)], 4);
  emulated::meet(emulated::warp());
  return result;
}

template <typename T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at = before + value;
  return before;
}
template <typename T>
T atomicMax(T* at, T value) {
  const T before = *at;
  if (value > before) *at = value;
  return before;
}
template <typename T>
T atomicMin(T* at, T value) {
  const T before = *at;
  if (value < before) *at = value;
  return before;
}
template <typename T>
T atomicCAS(T* at, T compare, T value) {
  const T before = *at;
  if (before == compare) *at = value;
  return before;
}

inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline int __float_as_int(float x) { return int(__float_as_uint(x)); }
inline float __int_as_float(int bits) { return __uint_as_float(uint32_t(bits)); }

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t) {
  std::memset(at, value, bytes);
  return cudaSuccess;
}
