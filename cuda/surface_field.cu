// Nearest triangles on CUDA; contract in surface_field.h.
//
// One thread per point looks at all triangles, a tile of them at a time in shared memory: no tree to build, and a mesh of some
// thousand triangles is read at the speed of the arithmetic. The search is in float32; the numbers of the triangle found in double.
#include "device.cuh"
#include "surface_triangle.inl"

namespace fourd {
namespace {

using namespace surface;

constexpr int kThreads = 128;  // and triangles in a tile

__device__ bool usable(const FourdSurfaceFieldArgs& s, const float* vertices, const int32_t* face) {
  for (int j = 0; j < 3; j++) {
    if (face[j] < 0 || face[j] >= s.vertex_count) return false;
    for (int i = 0; i < 3; i++)
      if (!(fabsf(vertices[3 * int64_t(face[j]) + i]) < INFINITY)) return false;
  }
  return true;
}

__global__ void search(FourdSurfaceFieldArgs s) {
  __shared__ SurfaceTriangle<float> tile[kThreads];
  __shared__ bool tile_usable[kThreads];
  const int64_t n = int64_t(blockIdx.x) * kThreads + threadIdx.x, batch = blockIdx.y;
  const float* vertices = s.vertices + 3 * batch * s.vertex_count;
  const int64_t place = batch * s.point_count + (n < s.point_count ? n : s.point_count - 1);
  const Point<float> p = point_at<float>(s.points + 3 * place);
  float least = INFINITY;
  int64_t found = 0;
  for (int64_t first = 0; first < s.face_count; first += kThreads) {
    const int64_t mine = first + threadIdx.x;
    tile_usable[threadIdx.x] = mine < s.face_count && usable(s, vertices, s.faces + 3 * mine);
    if (tile_usable[threadIdx.x])
      tile[threadIdx.x] = surface_triangle<float>(vertices, s.faces + 3 * mine, s.min_triangle_area);
    __syncthreads();
    const int count = int(s.face_count - first < kThreads ? s.face_count - first : kThreads);
    for (int i = 0; i < count; i++) {
      if (!tile_usable[i]) continue;
      const float here = tile[i].squared_distance(p);
      if (here < least) {  // rising indices: the first of equal ones stays
        least = here;
        found = first + i;
      }
    }
    __syncthreads();
  }
  if (n >= s.point_count) return;
  const int32_t* face = s.faces + 3 * found;
  for (int j = 0; j < 3; j++)
    if (face[j] < 0 || face[j] >= s.vertex_count) {  // face 0, when no triangle is usable
      s.face_index[place] = 0;
      s.signed_distance[place] = s.squared_distance[place] = NAN;
      for (int i = 0; i < 3; i++) s.barycentrics[3 * place + i] = NAN;
      return;
    }
  write_surface_point(s, vertices, surface_triangle<double>(vertices, face, s.min_triangle_area), place, found);
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_surface_field_cuda(const FourdSurfaceFieldArgs* args, cudaStream_t stream) {
  using namespace fourd;
  const FourdSurfaceFieldArgs& s = *args;
  if (s.batch < 0 || s.batch > 65535 || s.point_count < 0 || s.vertex_count < 0 || s.face_count < 1 ||
      s.face_count >= INT32_MAX || !(s.min_triangle_area >= 0.0f))
    return kBadArgument;
  if (s.batch == 0 || s.point_count == 0) return kOk;
  const dim3 grid(blocks_for(s.point_count, kThreads), unsigned(s.batch));
  FOURD_LAUNCH(search, grid, kThreads, stream, s);
  return launched();
}
