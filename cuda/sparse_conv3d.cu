// Sparse convolution on CUDA; contract in sparse_conv3d.h (an input index beyond the features counts as none here).
//
// A product of matrices over gathered rows: a block makes 64 output sites x 64 channels, going through the taps that any of its sites
// has, 16 input channels at a time through shared memory; each thread keeps 4 x 4 sums. The neighbour map itself is made with torch on a
// GPU (its size depends on the data).
#include "device.cuh"
#include "sparse_conv3d.h"

namespace fourd {
namespace {

constexpr int kTaps = 27, kThreads = 256;
constexpr int kSites = 64, kOut = 64, kIn = 16;  // of a block
constexpr int kRows = 32;                        // sites at a time for the weights' gradient
constexpr int kChunk = 2048;                     // sites a block takes for it

__global__ void convolve(FourdSparseConvArgs s) {
  __shared__ int32_t rows[kSites];
  __shared__ float features[kIn][kSites + 1];
  __shared__ float weight[kIn][kOut];
  const int64_t site = int64_t(blockIdx.x) * kSites;
  const int o0 = int(blockIdx.y) * kOut, t = int(threadIdx.x);
  const int my_site = t / 16 * 4, my_out = t % 16 * 4;
  float sum[4][4] = {};
  for (int tap = 0; tap < kTaps; tap++) {
    bool there = false;
    if (t < kSites) {
      int32_t row = site + t < s.out_count ? s.inputs[tap * s.out_count + site + t] : -1;
      if (row >= s.count) row = -1;
      rows[t] = row;
      there = row >= 0;
    }
    if (__syncthreads_count(there) == 0) continue;
    for (int c0 = 0; c0 < s.channels; c0 += kIn) {
      for (int e = t; e < kIn * kSites; e += kThreads) {
        const int c = e % kIn, r = e / kIn;
        features[c][r] = rows[r] >= 0 && c0 + c < s.channels ? s.features[int64_t(rows[r]) * s.channels + c0 + c] : 0.0f;
      }
      for (int e = t; e < kIn * kOut; e += kThreads) {
        const int o = e % kOut, c = e / kOut;
        weight[c][o] = o0 + o < s.out_channels && c0 + c < s.channels
                           ? s.weight[(int64_t(tap) * s.channels + c0 + c) * s.out_channels + o0 + o]
                           : 0.0f;
      }
      __syncthreads();
      for (int c = 0; c < kIn; c++)
        for (int i = 0; i < 4; i++)
          for (int j = 0; j < 4; j++) sum[i][j] += features[c][my_site + i] * weight[c][my_out + j];
      __syncthreads();
    }
  }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++)
      if (site + my_site + i < s.out_count && o0 + my_out + j < s.out_channels)
        s.out[(site + my_site + i) * s.out_channels + o0 + my_out + j] = sum[i][j];
}

// outputs [27, N]: the output site that an input meets through a tap (-1 everywhere before).
__global__ void turn_round(FourdSparseConvArgs s, int32_t* outputs) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= kTaps * s.out_count) return;
  const int32_t input = s.inputs[i];
  if (input >= 0 && input < s.count) outputs[i / s.out_count * s.count + input] = int32_t(i % s.out_count);
}

// grad_weight [27, C, O] += features^T grad_out over a chunk of sites; a block makes 16 x 64 of one tap.
__global__ void weight_back(FourdSparseConvArgs s, const float* grad_out, float* grad_weight, int in_tiles) {
  __shared__ float features[kRows][kIn];
  __shared__ float gradient[kRows][kOut];
  __shared__ int32_t rows[kRows];
  const int tap = int(blockIdx.x), c0 = int(blockIdx.y) % in_tiles * kIn, o0 = int(blockIdx.y) / in_tiles * kOut, t = int(threadIdx.x);
  const int my_in = t / 16, my_out = t % 16 * 4;
  const int64_t begin = int64_t(blockIdx.z) * kChunk, end = begin + kChunk < s.out_count ? begin + kChunk : s.out_count;
  float sum[4] = {};
  for (int64_t site = begin; site < end; site += kRows) {
    bool there = false;
    if (t < kRows) {
      int32_t row = site + t < end ? s.inputs[tap * s.out_count + site + t] : -1;
      if (row >= s.count) row = -1;
      rows[t] = row;
      there = row >= 0;
    }
    if (__syncthreads_count(there) == 0) continue;
    for (int e = t; e < kRows * kIn; e += kThreads) {
      const int c = e % kIn, r = e / kIn;
      features[r][c] = rows[r] >= 0 && c0 + c < s.channels ? s.features[int64_t(rows[r]) * s.channels + c0 + c] : 0.0f;
    }
    for (int e = t; e < kRows * kOut; e += kThreads) {
      const int o = e % kOut, r = e / kOut;
      gradient[r][o] = rows[r] >= 0 && o0 + o < s.out_channels ? grad_out[(site + r) * s.out_channels + o0 + o] : 0.0f;
    }
    __syncthreads();
    for (int r = 0; r < kRows; r++)
      for (int j = 0; j < 4; j++) sum[j] += features[r][my_in] * gradient[r][my_out + j];
    __syncthreads();
  }
  for (int j = 0; j < 4; j++)
    if (c0 + my_in < s.channels && o0 + my_out + j < s.out_channels)
      atomicAdd(grad_weight + (int64_t(tap) * s.channels + c0 + my_in) * s.out_channels + o0 + my_out + j, sum[j]);
}

bool valid(const FourdSparseConvArgs& s) {
  return s.count >= 0 && s.count < INT32_MAX && s.out_count >= 0 && s.out_count < INT32_MAX && s.channels >= 1 && s.out_channels >= 1;
}

void launch_convolve(const FourdSparseConvArgs& s, cudaStream_t stream) {
  if (s.out_count == 0) return;
  const dim3 grid(unsigned(blocks_for(s.out_count, kSites)), unsigned(blocks_for(s.out_channels, kOut)));
  FOURD_LAUNCH(convolve, grid, kThreads, stream, s);
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_sparse_conv3d_cuda(const FourdSparseConvArgs* args, cudaStream_t stream) {
  using namespace fourd;
  if (!valid(*args)) return kBadArgument;
  launch_convolve(*args, stream);
  return launched();
}

FOURD_EXPORT int fourd_sparse_conv3d_backward_cuda(const FourdSparseConvBackwardArgs* args, cudaStream_t stream) {
  using namespace fourd;
  const FourdSparseConvArgs& s = args->forward;
  if (!valid(s) || (args->grad_features && !args->outputs)) return kBadArgument;
  if (args->grad_features && s.count > 0) {
    cudaMemsetAsync(args->outputs, 0xff, size_t(kTaps) * s.count * sizeof(int32_t), stream);
    if (s.out_count > 0)
      FOURD_LAUNCH(turn_round, blocks_for(kTaps * s.out_count, kThreads), kThreads, stream, s, args->outputs);
    const FourdSparseConvArgs turned = {args->grad_out,  args->outputs, args->weight_transposed, args->grad_features,
                                        s.out_count,     s.count,       s.out_channels,          args->padded_channels,
                                        0};
    launch_convolve(turned, stream);
  }
  if (args->grad_weight) {
    cudaMemsetAsync(args->grad_weight, 0, size_t(kTaps) * s.channels * s.out_channels * sizeof(float), stream);
    const int in_tiles = blocks_for(s.channels, kIn), out_tiles = blocks_for(s.out_channels, kOut);
    const dim3 grid(kTaps, unsigned(in_tiles * out_tiles), unsigned(blocks_for(s.out_count, kChunk)));
    if (s.out_count > 0) FOURD_LAUNCH(weight_back, grid, kThreads, stream, s, args->grad_out, args->grad_weight, in_tiles);
  }
  return launched();
}
