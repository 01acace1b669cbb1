// Mesh rasteriser on the CPU; contract in rasterize_mesh.h.
//
// Faces are set up in parallel, listed per band of rows, and the bands are drawn in parallel: each pixel is written by one thread,
// in the order of the face indices. Along a row the three edge functions are linear, so the pixels inside form one span.
#include "rasterize_mesh.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "parallel.h"
#include "rasterize_face.inl"

namespace fourd {
namespace {

using namespace raster;

constexpr int kBand = 16;

struct Workspace {
  Scratch<double> camera_points;
  Scratch<RasterFace> faces;
  Scratch<int32_t> band_start;
  Scratch<int32_t> band_faces;
  Scratch<float> nearness;
};

// The columns of row centre `y` inside all three edges.
bool span(const RasterFace& f, double y, int* first, int* last) {
  double low = f.col0, high = f.col1;
  const double sum_a = f.a[0] + f.a[1] + f.a[2];
  const double sum_0 = (f.b[0] + f.b[1] + f.b[2]) * y + f.c[0] + f.c[1] + f.c[2];
  for (int i = 0; i < 3; i++) {
    // E_i + kEdge / z >= 0 along the row, at pixel centres x = col + 0.5
    const double slope = f.a[i] + kEdge * sum_a;
    const double at_zero = f.b[i] * y + f.c[i] + kEdge * sum_0 + 0.5 * slope;
    if (slope > 0.0) low = std::max(low, std::ceil(-at_zero / slope));
    else if (slope < 0.0) high = std::min(high, std::floor(-at_zero / slope));
    else if (at_zero < 0.0) return false;
  }
  if (!(low <= high)) return false;
  *first = int(low);
  *last = int(high);
  return true;
}

void draw_face(const FourdRasterArgs& s, const RasterFace& f, int32_t index, int row0, int row1, float* nearness) {
  const float largest = largest_nearness(s);
  for (int row = std::max(row0, f.row0); row <= std::min(row1, f.row1); row++) {
    int first, last;
    const double y = row + 0.5;
    if (!span(f, y, &first, &last)) continue;
    const double start = f.near_b * y + f.near_c + 0.5 * f.near_a;
    float* depth = nearness + size_t(row) * s.width;
    int32_t* out = s.face_index + size_t(row) * s.width;
    for (int col = first; col <= last; col++) {
      const float here = float(start + f.near_a * col);
      if (here > depth[col] && here <= largest) {
        depth[col] = here;
        out[col] = index;
      }
    }
  }
}

// Faces of each band of rows, in rising index.
void list_bands(const RasterFace* faces, int64_t count, int bands, Workspace* w) {
  int32_t* start = w->band_start.reserve(size_t(bands) + 1);
  std::fill(start, start + bands + 1, 0);
  for (int64_t f = 0; f < count; f++) {
    if (faces[f].col0 > faces[f].col1) continue;
    for (int b = faces[f].row0 / kBand; b <= faces[f].row1 / kBand; b++) start[b]++;
  }
  int32_t sum = 0;
  for (int b = 0; b <= bands; b++) {
    const int32_t here = b < bands ? start[b] : 0;
    start[b] = sum;
    sum += here;
  }
  int32_t* list = w->band_faces.reserve(size_t(sum) + 1);
  for (int64_t f = 0; f < count; f++) {
    if (faces[f].col0 > faces[f].col1) continue;
    for (int b = faces[f].row0 / kBand; b <= faces[f].row1 / kBand; b++) list[start[b]++] = int32_t(f);
  }
  for (int b = bands; b > 0; b--) start[b] = start[b - 1];
  start[0] = 0;
}

int run(const FourdRasterArgs& s, Workspace* w) {
  std::atomic<bool> bad_index{false};
  const RasterCamera cam = camera_of(s);
  double* points = w->camera_points.reserve(size_t(s.vertex_count) * 3 + 1);
  RasterFace* faces = w->faces.reserve(size_t(s.face_count) + 1);
  const size_t pixels = size_t(s.width) * s.height;
  float* nearness = w->nearness.reserve(pixels);
  const int bands = (s.height + kBand - 1) / kBand;
  const int threads = max_threads(s.threads);
  parallel_ranges(threads, s.vertex_count, 4096, [&](int64_t begin, int64_t end, int) {
    for (int64_t v = begin; v < end; v++) to_camera(cam, s.vertices + 3 * v, points + 3 * v);
  });
  parallel_ranges(threads, s.face_count, 2048, [&](int64_t begin, int64_t end, int) {
    if (!indices_fit(s.faces + 3 * begin, 3 * (end - begin), s.vertex_count)) {
      bad_index = true;
      return;
    }
    for (int64_t f = begin; f < end; f++) {
      const int32_t* corner = s.faces + 3 * f;
      const double* const p[3] = {points + 3 * size_t(corner[0]), points + 3 * size_t(corner[1]), points + 3 * size_t(corner[2])};
      set_face(s, cam, p, faces + f);
    }
  });
  if (bad_index) return kBadIndex;
  list_bands(faces, s.face_count, bands, w);
  const int32_t* start = w->band_start.data();
  const int32_t* list = w->band_faces.data();
  parallel_for(threads, bands, [&](int64_t band, int) {
    const int row0 = int(band) * kBand, row1 = std::min(row0 + kBand, int(s.height)) - 1;
    const size_t from = size_t(row0) * s.width, to = size_t(row1 + 1) * s.width;
    std::fill(nearness + from, nearness + to, s.orthographic ? -INFINITY : 0.0f);
    std::fill(s.face_index + from, s.face_index + to, -1);
    for (int32_t n = start[band]; n < start[band + 1]; n++) draw_face(s, faces[list[n]], list[n], row0, row1, nearness);
    if (s.barycentrics || s.depth_z)
      for (int row = row0; row <= row1; row++)
        for (int col = 0; col < s.width; col++) {
          const int32_t index = s.face_index[size_t(row) * s.width + col];
          write_pixel(s, index >= 0 ? faces + index : nullptr, col, row);
        }
  });
  return kOk;
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_rasterize_mesh(const FourdRasterArgs* args) {
  if (args->vertex_count < 0 || args->face_count < 0 || args->face_count >= INT32_MAX || args->width < 1 || args->height < 1 ||
      !std::isfinite(args->near_z) || (!args->orthographic && !(args->near_z > 0.0f)))
    return fourd::kBadArgument;
  static thread_local fourd::Workspace workspace;
  try {
    return fourd::run(*args, &workspace);
  } catch (const std::bad_alloc&) {
    return fourd::kOutOfMemory;
  }
}
