// Stands in for CUDA's header, so that kernels can be run lane by lane on a CPU: every lane is a coroutine that runs until the next
// barrier of its warp or block. Blocks run one after another; shared memory starts as NaN. What is not here does not compile.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
using std::isfinite;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
typedef void* cudaStream_t;
enum cudaError_t { cudaSuccess = 0 };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
template <typename F>
cudaError_t cudaFuncSetAttribute(F, int, int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t) {
  std::memset(p, value, n);
  return cudaSuccess;
}

namespace emulated {

constexpr int kWarp = 32, kMostLanes = 1024;

struct Lane {
  ucontext_t context;
  bool done;
  int64_t warp_barriers, block_barriers;  // passed or waited at
};

extern std::vector<Lane> lanes;
extern int current;
extern ucontext_t scheduler;
extern dim3 block_index, block_size, grid_size;
extern float* shared_memory;
extern uint64_t exchanged[kMostLanes];

void launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t, std::function<void()> body);

// Wait until all lanes from..to-1 that still run have come to as many barriers as this one.
inline void wait(int from, int to, int64_t Lane::*barriers) {
  const int me = current;
  const int64_t mine = ++(lanes[me].*barriers);
  for (;;) {
    bool all = true;
    for (int i = from; i < to && i < int(lanes.size()); i++) all = all && (lanes[i].done || lanes[i].*barriers >= mine);
    if (all) return;
    swapcontext(&lanes[me].context, &scheduler);
  }
}

// Every lane of the warp gives a value and reads the one of lane `from`.
template <typename T>
T exchange(T value, int from) {
  const int me = current;
  std::memcpy(&exchanged[me], &value, sizeof(T));
  wait(me / kWarp * kWarp, me / kWarp * kWarp + kWarp, &Lane::warp_barriers);
  T found;
  std::memcpy(&found, &exchanged[me / kWarp * kWarp + from], sizeof(T));
  wait(me / kWarp * kWarp, me / kWarp * kWarp + kWarp, &Lane::warp_barriers);
  return found;
}

}  // namespace emulated

#define threadIdx (dim3(unsigned(emulated::current)))
#define blockIdx (emulated::block_index)
#define blockDim (emulated::block_size)
#define gridDim (emulated::grid_size)

inline void __syncthreads() { emulated::wait(0, emulated::kMostLanes, &emulated::Lane::block_barriers); }
inline void __syncwarp(unsigned = 0) {
  const int first = emulated::current / emulated::kWarp * emulated::kWarp;
  emulated::wait(first, first + emulated::kWarp, &emulated::Lane::warp_barriers);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int step) {
  return emulated::exchange(value, emulated::current % emulated::kWarp ^ step);
}
template <typename T>
T __shfl_sync(unsigned, T value, int from) { return emulated::exchange(value, from); }
inline bool __any_sync(unsigned, bool value) {
  bool any = value;
  for (int step = 1; step < emulated::kWarp; step *= 2) any = any | __shfl_xor_sync(0, any, step);
  return any;
}
inline float atomicAdd(float* to, float value) {
  const float before = *to;
  *to += value;
  return before;
}
