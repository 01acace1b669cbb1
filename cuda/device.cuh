// What every CUDA file shares.
//
// Kernels take raw device pointers and run on the caller's stream; they allocate nothing (scratch memory comes from the caller,
// who has torch's allocator) and never wait for the device, so that they can be captured into CUDA graphs.
#pragma once

#include <cuda_runtime.h>

#include "common.h"

// Starts a kernel: FOURD_LAUNCH(kernel, grid, block, stream, arguments...). (A test defines it otherwise, to run kernels on a CPU.)
#if !defined(FOURD_LAUNCH)
#define FOURD_LAUNCH(kernel, grid, block, stream, ...) (kernel)<<<(grid), (block), 0, (stream)>>>(__VA_ARGS__)
#endif

namespace fourd {

constexpr int kCudaFailed = 4;  // as Status, for errors of the device

inline int blocks_for(int64_t count, int threads) { return int((count + threads - 1) / threads); }

// The status after launching kernels: errors of the launch itself; those of running kernels show at the next synchronisation.
inline int launched() { return cudaGetLastError() == cudaSuccess ? int(kOk) : kCudaFailed; }

}  // namespace fourd
