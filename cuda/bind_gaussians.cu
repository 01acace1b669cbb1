// Gaussians bound to triangles on CUDA, one thread each; contract in bind_gaussians.h.
#include <cmath>

#include "bind_gaussians.h"
#include "device.cuh"

namespace fourd {
namespace {

constexpr int kThreads = 256;

__global__ void bind(FourdBindArgs s) {
  const int64_t n = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (n >= s.count) return;
  const int32_t triangle = s.triangle[n];
  bool fits = triangle >= 0 && triangle < s.face_count;
  const float* v[3];
  for (int i = 0; i < 3 && fits; i++) {
    const int32_t corner = s.faces[3 * int64_t(triangle) + i];
    fits = corner >= 0 && corner < s.vertex_count;
    v[i] = s.vertices + 3 * int64_t(corner);
  }
  if (!fits) {
    for (int i = 0; i < 3; i++) s.means[3 * n + i] = NAN;
    for (int i = 0; i < 6; i++) s.covariances[6 * n + i] = NAN;
    return;
  }
  float f[3][3];  // columns e1, e2, h n
  for (int d = 0; d < 3; d++) {
    f[d][0] = v[1][d] - v[0][d];
    f[d][1] = v[2][d] - v[0][d];
  }
  const float normal[3] = {f[1][0] * f[2][1] - f[2][0] * f[1][1], f[2][0] * f[0][1] - f[0][0] * f[2][1],
                           f[0][0] * f[1][1] - f[1][0] * f[0][1]};
  const float length = sqrtf(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]);  // twice the area
  const float scale = length > 0.0f ? 1.0f / sqrtf(length) : 0.0f;
  for (int d = 0; d < 3; d++) f[d][2] = normal[d] * scale;
  const float* m = s.local_mean + 3 * n;
  for (int d = 0; d < 3; d++) s.means[3 * n + d] = v[0][d] + f[d][0] * m[0] + f[d][1] * m[1] + f[d][2] * m[2];
  const float* u = s.local_covariance + 6 * n;
  const float local[3][3] = {{u[0], u[1], u[2]}, {u[1], u[3], u[4]}, {u[2], u[4], u[5]}};
  float half[3][3];  // F C
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) half[i][j] = f[i][0] * local[0][j] + f[i][1] * local[1][j] + f[i][2] * local[2][j];
  float out[6];
  int at = 0;
  for (int i = 0; i < 3; i++)
    for (int j = i; j < 3; j++) out[at++] = half[i][0] * f[j][0] + half[i][1] * f[j][1] + half[i][2] * f[j][2];
  const float trace = out[0] + out[3] + out[5], limit = s.max_trace ? s.max_trace[n] : s.max_trace_all;
  const float down = trace > limit ? limit / trace : 1.0f;
  for (int i = 0; i < 6; i++) s.covariances[6 * n + i] = out[i] * down;
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_bind_gaussians_cuda(const FourdBindArgs* args, cudaStream_t stream) {
  using namespace fourd;
  if (args->count < 0 || args->face_count < 0) return kBadArgument;
  if (args->count > 0) FOURD_LAUNCH(bind, blocks_for(args->count, kThreads), kThreads, stream, *args);
  return launched();
}
