// Mesh rasteriser on the CPU; contract in rasterize_mesh.h.
//
// Faces are set up in parallel, listed per band of rows, and the bands are drawn in parallel: each pixel is written by one thread,
// in the order of the face indices. Along a row the three edge functions are linear, so the pixels inside form one span.
#include "rasterize_mesh.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "parallel.h"

namespace fourd {
namespace {

constexpr int kBand = 16;
constexpr double kEdge = 1e-9;

// E_i(x, y) = a[i] x + b[i] y + c[i] = barycentric_i / z at pixel coordinates (x, y); their sum is 1/z.
struct Face {
  double a[3], b[3], c[3];
  int32_t col0, col1, row0, row1;  // bounding box, empty (col0 > col1) when the face is left out
};

struct Workspace {
  Scratch<double> camera_points;
  Scratch<Face> faces;
  Scratch<int32_t> band_start;
  Scratch<int32_t> band_faces;
  Scratch<float> inverse_z;
};

struct Camera {
  double r[9], t[3], fx, fy, cx, cy;
};

Camera camera_of(const FourdRasterArgs& s) {
  Camera cam;
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) cam.r[3 * i + j] = s.world_to_camera[4 * i + j];
    cam.t[i] = s.world_to_camera[4 * i + 3];
  }
  cam.fx = s.intrinsics[0];
  cam.fy = s.intrinsics[4];
  cam.cx = s.intrinsics[2];
  cam.cy = s.intrinsics[5];
  return cam;
}

void cross(const double* p, const double* q, double* out) {
  out[0] = p[1] * q[2] - p[2] * q[1];
  out[1] = p[2] * q[0] - p[0] * q[2];
  out[2] = p[0] * q[1] - p[1] * q[0];
}

int clamp_pixel(double x, int low, int high) { return int(std::min(std::max(x, double(low)), double(high))); }

void set_box(const FourdRasterArgs& s, const Camera& cam, const double* const p[3], Face* f) {
  f->col0 = f->row0 = 0;
  f->col1 = s.width - 1;
  f->row1 = s.height - 1;
  const double near_z = s.near_z;
  if (p[0][2] < near_z || p[1][2] < near_z || p[2][2] < near_z) return;  // crosses the near plane: may show anywhere
  double x0 = 1e300, x1 = -1e300, y0 = 1e300, y1 = -1e300;
  for (int i = 0; i < 3; i++) {
    const double x = cam.fx * p[i][0] / p[i][2] + cam.cx, y = cam.fy * p[i][1] / p[i][2] + cam.cy;
    x0 = std::min(x0, x);
    x1 = std::max(x1, x);
    y0 = std::min(y0, y);
    y1 = std::max(y1, y);
  }
  f->col0 = clamp_pixel(std::ceil(x0 - 0.5 - 1e-6), 0, s.width);
  f->col1 = clamp_pixel(std::floor(x1 - 0.5 + 1e-6), -1, s.width - 1);
  f->row0 = clamp_pixel(std::ceil(y0 - 0.5 - 1e-6), 0, s.height);
  f->row1 = clamp_pixel(std::floor(y1 - 0.5 + 1e-6), -1, s.height - 1);
}

void set_face(const FourdRasterArgs& s, const Camera& cam, const double* points, int64_t index, Face* f) {
  const int32_t* corner = s.faces + 3 * index;
  const double* const p[3] = {points + 3 * size_t(corner[0]), points + 3 * size_t(corner[1]), points + 3 * size_t(corner[2])};
  f->col0 = f->row0 = 0;
  f->col1 = f->row1 = -1;
  if (p[0][2] < s.near_z && p[1][2] < s.near_z && p[2][2] < s.near_z) return;
  double n[3][3];
  for (int i = 0; i < 3; i++) cross(p[(i + 1) % 3], p[(i + 2) % 3], n[i]);
  const double det = p[0][0] * n[0][0] + p[0][1] * n[0][1] + p[0][2] * n[0][2];
  if (!(std::fabs(det) > 0.0) || !std::isfinite(det)) return;
  if (s.cull_back && det > 0.0) return;  // the ray and the outward normal agree: seen from behind
  for (int i = 0; i < 3; i++) {
    f->a[i] = n[i][0] / (cam.fx * det);
    f->b[i] = n[i][1] / (cam.fy * det);
    f->c[i] = n[i][2] / det - f->a[i] * cam.cx - f->b[i] * cam.cy;
  }
  set_box(s, cam, p, f);
  if (f->row0 > f->row1) f->col1 = f->col0 - 1;
}

// The columns of row centre `y` inside all three edges.
bool span(const Face& f, double y, int* first, int* last) {
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

void draw_face(const FourdRasterArgs& s, const Face& f, int32_t index, int row0, int row1, float* inverse_z) {
  const float largest = 1.0f / s.near_z;
  for (int row = std::max(row0, f.row0); row <= std::min(row1, f.row1); row++) {
    int first, last;
    const double y = row + 0.5;
    if (!span(f, y, &first, &last)) continue;
    const double slope = f.a[0] + f.a[1] + f.a[2];
    const double start = (f.b[0] + f.b[1] + f.b[2]) * y + f.c[0] + f.c[1] + f.c[2] + 0.5 * slope;
    float* depth = inverse_z + size_t(row) * s.width;
    int32_t* out = s.face_index + size_t(row) * s.width;
    for (int col = first; col <= last; col++) {
      const float here = float(start + slope * col);
      if (here > depth[col] && here <= largest) {
        depth[col] = here;
        out[col] = index;
      }
    }
  }
}

void write_row(const FourdRasterArgs& s, const Face* faces, int row) {
  const double y = row + 0.5;
  for (int col = 0; col < s.width; col++) {
    const size_t at = size_t(row) * s.width + col;
    const int32_t index = s.face_index[at];
    float b[3] = {0.0f, 0.0f, 0.0f}, z = 0.0f;
    if (index >= 0) {
      const Face& f = faces[index];
      const double x = col + 0.5;
      double e[3], seen = 0.0, sum = 0.0;
      for (int i = 0; i < 3; i++) {
        e[i] = f.a[i] * x + f.b[i] * y + f.c[i];
        sum += e[i];
        e[i] = std::max(e[i], 0.0);
        seen += e[i];
      }
      for (int i = 0; i < 3; i++) b[i] = float(e[i] / seen);
      z = float(1.0 / sum);
    }
    if (s.barycentrics) std::memcpy(s.barycentrics + 3 * at, b, sizeof(b));
    if (s.depth_z) s.depth_z[at] = z;
  }
}

// Faces of each band of rows, in rising index.
void list_bands(const Face* faces, int64_t count, int bands, Workspace* w) {
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
  const Camera cam = camera_of(s);
  double* points = w->camera_points.reserve(size_t(s.vertex_count) * 3 + 1);
  Face* faces = w->faces.reserve(size_t(s.face_count) + 1);
  const size_t pixels = size_t(s.width) * s.height;
  float* inverse_z = w->inverse_z.reserve(pixels);
  const int bands = (s.height + kBand - 1) / kBand;
  const int threads = max_threads(s.threads);
  parallel_ranges(threads, s.vertex_count, 4096, [&](int64_t begin, int64_t end, int) {
    for (int64_t v = begin; v < end; v++)
      for (int i = 0; i < 3; i++)
        points[3 * v + i] = cam.r[3 * i] * s.vertices[3 * v] + cam.r[3 * i + 1] * s.vertices[3 * v + 1] +
                            cam.r[3 * i + 2] * s.vertices[3 * v + 2] + cam.t[i];
  });
  parallel_ranges(threads, s.face_count, 2048, [&](int64_t begin, int64_t end, int) {
    if (!indices_fit(s.faces + 3 * begin, 3 * (end - begin), s.vertex_count)) {
      bad_index = true;
      return;
    }
    for (int64_t f = begin; f < end; f++) set_face(s, cam, points, f, faces + f);
  });
  if (bad_index) return kBadIndex;
  list_bands(faces, s.face_count, bands, w);
  const int32_t* start = w->band_start.data();
  const int32_t* list = w->band_faces.data();
  parallel_for(threads, bands, [&](int64_t band, int) {
    const int row0 = int(band) * kBand, row1 = std::min(row0 + kBand, int(s.height)) - 1;
    const size_t from = size_t(row0) * s.width, to = size_t(row1 + 1) * s.width;
    std::fill(inverse_z + from, inverse_z + to, 0.0f);
    std::fill(s.face_index + from, s.face_index + to, -1);
    for (int32_t n = start[band]; n < start[band + 1]; n++) draw_face(s, faces[list[n]], list[n], row0, row1, inverse_z);
    if (s.barycentrics || s.depth_z)
      for (int row = row0; row <= row1; row++) write_row(s, faces, row);
  });
  return kOk;
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_rasterize_mesh(const FourdRasterArgs* args) {
  if (args->vertex_count < 0 || args->face_count < 0 || args->face_count >= INT32_MAX || args->width < 1 || args->height < 1 ||
      !(args->near_z > 0.0f))
    return fourd::kBadArgument;
  static thread_local fourd::Workspace workspace;
  try {
    return fourd::run(*args, &workspace);
  } catch (const std::bad_alloc&) {
    return fourd::kOutOfMemory;
  }
}
