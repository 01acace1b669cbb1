// Features of points in a tri-plane on CUDA; contract in triplane_sample.h. One warp per point, lanes are channels.
#include "device.cuh"
#include "triplane_sample.h"

namespace fourd {
namespace {

constexpr int kWarp = 32, kThreads = 256;
constexpr unsigned kAll = 0xffffffffu;

// The texels around a point in one plane: first texel, fraction and slope (texels per unit) along columns, rows, layers.
struct Cell {
  int first[3];
  float part[3], slope[3];
};

// False where the point meets nothing of the plane.
__device__ bool find_cell(const FourdTriplaneSampleArgs& a, int plane, const float* point, Cell* c) {
  const int size[3] = {a.width, a.height, a.depth};
  for (int d = 0; d < 3; d++) {
    c->first[d] = 0;
    c->part[d] = c->slope[d] = 0.0f;
    if (d == 2 && !a.layered) continue;
    c->slope[d] = float(size[d]) / a.box_size;
    const float at = point[a.axes[3 * plane + d]] * c->slope[d] + 0.5f * float(size[d] - 1);
    if (!(at > -1.0f && at < float(size[d]))) return false;
    const float low = floorf(at);
    c->first[d] = int(low);
    c->part[d] = at - low;
  }
  return true;
}

// Corner `bits` of a cell: indices, weight, and its derivative along each axis of the point (without plane_scale). False outside.
__device__ bool corner(const FourdTriplaneSampleArgs& a, const Cell& c, int bits, int* at, float* weight, float* along) {
  const int size[3] = {a.width, a.height, a.depth};
  float share[3];
  bool inside = true;
  for (int d = 0; d < 3; d++) {
    const int up = bits >> d & 1;
    at[d] = c.first[d] + up;
    inside = inside && at[d] >= 0 && at[d] < size[d];
    share[d] = up ? c.part[d] : 1.0f - c.part[d];
    along[d] = up ? c.slope[d] : -c.slope[d];
  }
  *weight = share[0] * share[1] * share[2];
  for (int d = 0; d < 3; d++) along[d] *= share[(d + 1) % 3] * share[(d + 2) % 3];
  return inside;
}

__device__ bool is_finite(const float* p) { return isfinite(p[0]) && isfinite(p[1]) && isfinite(p[2]); }

__device__ const float* texel(const FourdTriplaneSampleArgs& a, int64_t item, int plane, const int* at) {
  return a.planes + item * a.strides[0] + plane * a.strides[1] + at[2] * a.strides[3] + at[1] * a.strides[4] +
         at[0] * a.strides[5];
}

__global__ void sample(FourdTriplaneSampleArgs a) {
  const int64_t index = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (index >= a.count * a.batch) return;
  const float point[3] = {a.points[3 * index], a.points[3 * index + 1], a.points[3 * index + 2]};
  const bool finite = is_finite(point);
  const int64_t item = index / a.count;
  for (int c = threadIdx.x % kWarp; c < a.channels; c += kWarp) {
    float sum = finite ? 0.0f : nanf("");
    for (int plane = 0; finite && plane < 3; plane++) {
      Cell cell;
      if (!find_cell(a, plane, point, &cell)) continue;
      for (int bits = 0; bits < (a.layered ? 8 : 4); bits++) {
        int at[3];
        float weight, along[3];
        if (corner(a, cell, bits, at, &weight, along)) sum += weight * texel(a, item, plane, at)[c * a.strides[2]];
      }
    }
    a.features[index * a.channels + c] = sum * a.plane_scale;
  }
}

__global__ void sample_backward(FourdTriplaneSampleArgs a) {
  const int64_t index = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (index >= a.count * a.batch) return;
  const int lane = threadIdx.x % kWarp;
  const float point[3] = {a.points[3 * index], a.points[3 * index + 1], a.points[3 * index + 2]};
  const int64_t item = index / a.count;
  const int64_t plane_size = int64_t(a.depth) * a.height * a.width * a.channels;
  float of_point[3] = {0.0f, 0.0f, 0.0f};
  for (int plane = 0; is_finite(point) && plane < 3; plane++) {
    Cell cell;
    if (!find_cell(a, plane, point, &cell)) continue;
    for (int bits = 0; bits < (a.layered ? 8 : 4); bits++) {
      int at[3];
      float weight, along[3], dot = 0.0f;
      if (!corner(a, cell, bits, at, &weight, along)) continue;
      const int64_t place = (int64_t(at[2]) * a.height + at[1]) * a.width + at[0];
      for (int c = lane; c < a.channels; c += kWarp) {
        const float g = a.grad_features[index * a.channels + c] * a.plane_scale;
        if (a.grad_planes) atomicAdd(a.grad_planes + (item * 3 + plane) * plane_size + place * a.channels + c, weight * g);
        if (a.grad_points) dot += g * texel(a, item, plane, at)[c * a.strides[2]];
      }
      for (int d = 0; d < (a.layered ? 3 : 2); d++) of_point[a.axes[3 * plane + d]] += dot * along[d];
    }
  }
  if (!a.grad_points) return;
  for (int d = 0; d < 3; d++) {
    float sum = of_point[d];
    for (int step = kWarp / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAll, sum, step);
    if (lane == 0) a.grad_points[3 * index + d] = sum;
  }
}

bool sizes_fit(const FourdTriplaneSampleArgs& a) {
  return a.batch >= 0 && a.count >= 0 && a.channels > 0 && a.depth > 0 && a.height > 0 && a.width > 0 &&
         (a.layered || a.depth == 1) && a.count * a.batch < (int64_t(1) << 31) * kThreads / kWarp;
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_triplane_sample_cuda(const FourdTriplaneSampleArgs* args, cudaStream_t stream) {
  using namespace fourd;
  if (!sizes_fit(*args)) return kBadArgument;
  const int64_t points = args->count * args->batch;
  if (points > 0) sample<<<blocks_for(points * kWarp, kThreads), kThreads, 0, stream>>>(*args);
  return launched();
}

FOURD_EXPORT int fourd_triplane_sample_backward_cuda(const FourdTriplaneSampleArgs* args, cudaStream_t stream) {
  using namespace fourd;
  const FourdTriplaneSampleArgs& a = *args;
  if (!sizes_fit(a)) return kBadArgument;
  const size_t bytes = sizeof(float) * 3 * a.batch * a.channels * size_t(a.depth) * a.height * a.width;
  if (a.grad_planes && cudaMemsetAsync(a.grad_planes, 0, bytes, stream) != cudaSuccess) return kCudaFailed;
  const int64_t points = a.count * a.batch;
  if (points > 0) sample_backward<<<blocks_for(points * kWarp, kThreads), kThreads, 0, stream>>>(a);
  return launched();
}
