// What the CUDA library says of itself: the sources it was built from, and the last error of the device.
#include "device.cuh"

#ifndef FOURD_SOURCE_HASH
#define FOURD_SOURCE_HASH "unknown"
#endif

// Hash of the sources this library was built from: the loader compares it, so an old build is never used with new sources.
FOURD_EXPORT const char* fourd_source_hash() { return FOURD_SOURCE_HASH; }

// The device's last error in words ("no error" when there is none); does not clear it.
FOURD_EXPORT const char* fourd_cuda_error() { return cudaGetErrorString(cudaPeekAtLastError()); }
