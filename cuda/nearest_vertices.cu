// Nearest vertices on CUDA; contract in nearest_vertices.h.
//
// One thread per point looks at all vertices, a tile of them at a time in shared memory, and keeps its k nearest sorted.
#include <cmath>

#include "device.cuh"
#include "nearest_vertices.h"

namespace fourd {
namespace {

constexpr int kThreads = 128;  // and vertices in a tile

template <int kMost>
__global__ void search(FourdNearestVerticesArgs s) {
  __shared__ float tile[kThreads][3];
  __shared__ int32_t tile_index[kThreads];
  const int64_t n = int64_t(blockIdx.x) * kThreads + threadIdx.x, batch = blockIdx.y;
  const float* vertices = s.vertices + 3 * batch * s.vertex_count;
  const int64_t place = batch * s.point_count + (n < s.point_count ? n : s.point_count - 1);
  const float p[3] = {s.points[3 * place], s.points[3 * place + 1], s.points[3 * place + 2]};
  const int k = kMost == 1 ? 1 : s.k;
  float distance[kMost];
  int32_t index[kMost];
#pragma unroll
  for (int i = 0; i < kMost; i++) {
    distance[i] = INFINITY;
    index[i] = -1;  // free
  }
  for (int64_t first = 0; first < s.subset_count; first += kThreads) {
    const int64_t mine = first + threadIdx.x;
    if (mine < s.subset_count) {
      const int32_t vertex = s.subset ? s.subset[mine] : int32_t(mine);
      const bool fits = vertex >= 0 && vertex < s.vertex_count;
      for (int i = 0; i < 3; i++) tile[threadIdx.x][i] = fits ? vertices[3 * int64_t(vertex) + i] : NAN;
      tile_index[threadIdx.x] = fits ? vertex : 0;
    }
    __syncthreads();
    const int count = int(s.subset_count - first < kThreads ? s.subset_count - first : kThreads);
    for (int t = 0; t < count; t++) {
      const float x = p[0] - tile[t][0], y = p[1] - tile[t][1], z = p[2] - tile[t][2];
      float carried = x * x + y * y + z * z;
      if (!(carried < INFINITY)) carried = INFINITY;
      int32_t carried_index = tile_index[t];
      if (!(carried < distance[k - 1] || index[k - 1] < 0)) continue;
      // Rising indices: a vertex goes behind those that are as near, all farther ones move on, and the last one falls out.
      bool placed = false;
#pragma unroll
      for (int i = 0; i < kMost; i++) {
        if (i < k && (placed || index[i] < 0 || carried < distance[i])) {
          placed = true;
          const float d = distance[i];
          const int32_t j = index[i];
          distance[i] = carried;
          index[i] = carried_index;
          if (j < 0) break;
          carried = d;
          carried_index = j;
        }
      }
    }
    __syncthreads();
  }
  if (n >= s.point_count) return;
  for (int i = 0; i < k; i++) {
    float sum = 0.0f;  // of the arithmetic, where the search took a number that is not finite as infinite
    for (int d = 0; d < 3; d++) {
      const float off = p[d] - vertices[3 * int64_t(index[i]) + d];
      sum += off * off;
    }
    s.indices[place * k + i] = index[i];
    s.squared_distance[place * k + i] = sum;
  }
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_nearest_vertices_cuda(const FourdNearestVerticesArgs* args, cudaStream_t stream) {
  using namespace fourd;
  const FourdNearestVerticesArgs& s = *args;
  if (s.batch < 0 || s.batch > 65535 || s.point_count < 0 || s.vertex_count < 0 || s.vertex_count >= INT32_MAX || s.k < 1 ||
      s.k > 32 || s.k > s.subset_count || s.subset_count >= INT32_MAX)
    return kBadArgument;
  if (s.batch == 0 || s.point_count == 0) return kOk;
  const dim3 grid(blocks_for(s.point_count, kThreads), unsigned(s.batch));
  if (s.k == 1) FOURD_LAUNCH(search<1>, grid, kThreads, stream, s);
  else if (s.k <= 8) FOURD_LAUNCH(search<8>, grid, kThreads, stream, s);
  else FOURD_LAUNCH(search<32>, grid, kThreads, stream, s);
  return launched();
}
