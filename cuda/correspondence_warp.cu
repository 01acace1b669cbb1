// correspondence_warp on CUDA; contract in correspondence_warp.h. One thread for each source pixel; the sums of a target pixel are
// atomic, so their last bits depend on the order of the threads.
#include "device.cuh"
#include "correspondence_warp_land.inl"

namespace fourd {
namespace {

constexpr int kThreads = 256;

__device__ float weight_at(const FourdWarpArgs& s, const Landing& at, int r, int c, float surface) {
  return at.by_row[r - at.first_row] * at.by_col[c - at.first_col] * expf(-fabsf(at.z - surface) / s.softness);
}

// The source pixel of this thread; false where there is none or it lands nowhere.
__device__ bool landing_of_thread(const FourdWarpArgs& s, int64_t* from, int* b, Landing* at) {
  const int64_t plane = int64_t(s.height) * s.width, i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= plane * s.batch) return false;
  *b = int(i / plane);
  *from = i % plane;
  return land(s, s.projection + 12 * *b, s.depth_z[i], int(*from / s.width), int(*from % s.width), 0, s.out_height - 1, at);
}

__global__ void nearest(FourdWarpArgs s) {
  int64_t from;
  int b;
  Landing at;
  if (!landing_of_thread(s, &from, &b, &at)) return;
  unsigned* surface = reinterpret_cast<unsigned*>(s.surface) + int64_t(b) * s.out_height * s.out_width;
  for (int r = at.first_row; r <= at.last_row; r++)
    for (int c = at.first_col; c <= at.last_col; c++)
      if (at.by_row[r - at.first_row] * at.by_col[c - at.first_col] >= kCovers)
        atomicMin(surface + int64_t(r) * s.out_width + c, unsigned(__float_as_uint(at.z)));
}

__global__ void finish_surface(FourdWarpArgs s, int64_t count) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float z = s.target_depth ? s.target_depth[i] : s.surface[i];
  s.surface[i] = z > 0.0f && z < INFINITY ? z : 0.0f;
}

__global__ void add_colors(FourdWarpArgs s) {
  int64_t from;
  int b;
  Landing at;
  if (!landing_of_thread(s, &from, &b, &at)) return;
  const int64_t plane = int64_t(s.height) * s.width, target = int64_t(s.out_height) * s.out_width;
  for (int r = at.first_row; r <= at.last_row; r++) {
    for (int c = at.first_col; c <= at.last_col; c++) {
      const int64_t to = int64_t(r) * s.out_width + c;
      const float surface = s.surface[b * target + to];
      if (!(surface > 0.0f)) continue;
      const float w = weight_at(s, at, r, c, surface);
      for (int d = 0; d < s.channels; d++)
        atomicAdd(s.out + (int64_t(b) * s.channels + d) * target + to, w * s.image[(int64_t(b) * s.channels + d) * plane + from]);
      atomicAdd(s.weight + b * target + to, w);
    }
  }
}

__global__ void divide(FourdWarpArgs s, int64_t count) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t target = int64_t(s.out_height) * s.out_width, b = i / target;
  const float weight = s.weight[i];
  for (int d = 0; d < s.channels; d++) {
    float* const out = s.out + (b * s.channels + d) * target + i % target;
    *out = weight < kLeast ? 0.0f : *out / weight;
  }
}

__global__ void gather(FourdWarpArgs s) {
  const int64_t plane = int64_t(s.height) * s.width, target = int64_t(s.out_height) * s.out_width;
  int64_t from;
  int b;
  Landing at;
  if (!landing_of_thread(s, &from, &b, &at)) return;
  for (int r = at.first_row; r <= at.last_row; r++) {
    for (int c = at.first_col; c <= at.last_col; c++) {
      const int64_t to = int64_t(r) * s.out_width + c;
      const float surface = s.surface[b * target + to], weight = s.weight[b * target + to];
      if (!(surface > 0.0f) || weight < kLeast) continue;
      const float share = weight_at(s, at, r, c, surface) / weight;
      for (int d = 0; d < s.channels; d++)
        s.grad_image[(int64_t(b) * s.channels + d) * plane + from] += share * s.grad_out[(int64_t(b) * s.channels + d) * target + to];
    }
  }
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_correspondence_warp_cuda(const FourdWarpArgs* args, cudaStream_t stream) {
  using namespace fourd;
  const FourdWarpArgs& s = *args;
  if (!valid(s)) return kBadArgument;
  if (s.batch == 0) return kOk;
  const int64_t pixels = int64_t(s.batch) * s.height * s.width, count = int64_t(s.batch) * s.out_height * s.out_width;
  const int from = blocks_for(pixels, kThreads), to = blocks_for(count, kThreads);
  if (!s.target_depth) {
    // all bits set: above every positive depth as a number without sign, and no number as a float
    cudaMemsetAsync(s.surface, 0xff, size_t(count) * sizeof(float), stream);
    FOURD_LAUNCH(nearest, from, kThreads, stream, s);
  }
  FOURD_LAUNCH(finish_surface, to, kThreads, stream, s, count);
  cudaMemsetAsync(s.out, 0, size_t(count) * s.channels * sizeof(float), stream);
  cudaMemsetAsync(s.weight, 0, size_t(count) * sizeof(float), stream);
  FOURD_LAUNCH(add_colors, from, kThreads, stream, s);
  FOURD_LAUNCH(divide, to, kThreads, stream, s, count);
  return launched();
}

FOURD_EXPORT int fourd_correspondence_warp_backward_cuda(const FourdWarpArgs* args, cudaStream_t stream) {
  using namespace fourd;
  const FourdWarpArgs& s = *args;
  if (!valid(s)) return kBadArgument;
  if (s.batch == 0) return kOk;
  const int64_t pixels = int64_t(s.batch) * s.height * s.width;
  cudaMemsetAsync(s.grad_image, 0, size_t(pixels) * s.channels * sizeof(float), stream);
  FOURD_LAUNCH(gather, blocks_for(pixels, kThreads), kThreads, stream, s);
  return launched();
}
