// Mesh rasteriser on CUDA; contract in rasterize_mesh.h.
//
// One warp per triangle offers it to every pixel that it covers, by an atomic maximum over depth and index in one number;
// then one thread per pixel writes the winner. The order of the triangles therefore does not matter.
#include "device.cuh"
#include "rasterize_face.inl"

namespace fourd {
namespace {

using namespace raster;

constexpr int kThreads = 256, kWarp = 32;

// Sets up face `index`; false when it is left out.
__device__ bool load_face(const FourdRasterArgs& s, int64_t index, RasterFace* f) {
  const RasterCamera cam = camera_of(s);
  double points[3][3];
  for (int i = 0; i < 3; i++) {
    const int32_t corner = s.faces[3 * index + i];
    if (corner < 0 || corner >= s.vertex_count) return false;
    to_camera(cam, s.vertices + 3 * int64_t(corner), points[i]);
  }
  const double* const corners[3] = {points[0], points[1], points[2]};
  set_face(s, cam, corners, f);
  return f->col0 <= f->col1;
}

// Float order as unsigned order, above the face's index counted down: the largest is the nearest, the lowest among equals.
__device__ uint64_t key_of(float nearness, int64_t index) {
  const uint32_t bits = __float_as_uint(nearness);
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (uint64_t(ordered) << 32) | (0xffffffffu - uint32_t(index));
}

__global__ void clear(uint64_t* keys, int64_t count) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) keys[i] = 0;
}

__global__ void draw(FourdRasterArgs s) {
  const int64_t index = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  RasterFace f;
  if (index >= s.face_count || !load_face(s, index, &f)) return;
  const float largest = largest_nearness(s);
  const int wide = f.col1 - f.col0 + 1;
  const int64_t count = int64_t(wide) * (f.row1 - f.row0 + 1);
  for (int64_t n = threadIdx.x % kWarp; n < count; n += kWarp) {
    const int col = f.col0 + int(n % wide), row = f.row0 + int(n / wide);
    const double x = col + 0.5, y = row + 0.5;
    double e[3], sum = 0.0;
    for (int i = 0; i < 3; i++) sum += e[i] = f.a[i] * x + f.b[i] * y + f.c[i];
    const float nearness = float(f.near_a * x + f.near_b * y + f.near_c);
    const bool inside = e[0] >= -kEdge * sum && e[1] >= -kEdge * sum && e[2] >= -kEdge * sum;
    if (!inside || !(nearness <= largest) || (!s.orthographic && !(nearness > 0.0f))) continue;
    auto* key = reinterpret_cast<unsigned long long*>(s.keys + int64_t(row) * s.width + col);
    atomicMax(key, static_cast<unsigned long long>(key_of(nearness, index)));
  }
}

__global__ void write(FourdRasterArgs s) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= int64_t(s.width) * s.height) return;
  const uint64_t key = s.keys[at];
  const int32_t index = key ? int32_t(0xffffffffu - uint32_t(key)) : -1;
  s.face_index[at] = index;
  RasterFace f;
  const bool seen = index >= 0 && load_face(s, index, &f);
  write_pixel(s, seen ? &f : nullptr, int(at % s.width), int(at / s.width));
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_rasterize_mesh_cuda(const FourdRasterArgs* args, cudaStream_t stream) {
  using namespace fourd;
  const FourdRasterArgs& s = *args;
  if (s.vertex_count < 0 || s.face_count < 0 || s.face_count >= INT32_MAX || s.width < 1 || s.height < 1 || !s.keys ||
      !(fabsf(s.near_z) < INFINITY) || (!s.orthographic && !(s.near_z > 0.0f)))
    return kBadArgument;
  const int64_t pixels = int64_t(s.width) * s.height;
  FOURD_LAUNCH(clear, blocks_for(pixels, kThreads), kThreads, stream, s.keys, pixels);
  if (s.face_count > 0) FOURD_LAUNCH(draw, blocks_for(s.face_count * kWarp, kThreads), kThreads, stream, s);
  FOURD_LAUNCH(write, blocks_for(pixels, kThreads), kThreads, stream, s);
  return launched();
}
