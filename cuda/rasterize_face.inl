// The arithmetic of one triangle, for the CPU and the CUDA rasteriser; contract and formula in rasterize_mesh.h.
#pragma once
#include <cmath>

#include "rasterize_mesh.h"

namespace fourd {
namespace raster {

constexpr double kEdge = 1e-9;

// E_i(x, y) = a[i] x + b[i] y + c[i] at pixel coordinates (x, y): barycentric_i / z, or barycentric_i when orthographic.
// near_a x + near_b y + near_c orders hits by depth: 1/z, or -z when orthographic.
struct RasterFace {
  double a[3], b[3], c[3];
  double near_a, near_b, near_c;
  int32_t col0, col1, row0, row1;  // bounding box, empty (col0 > col1) when the face is left out
};

struct RasterCamera {
  double r[9], t[3], fx, fy, cx, cy;
};

FOURD_SHARED RasterCamera camera_of(const FourdRasterArgs& s) {
  RasterCamera cam;
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

FOURD_SHARED void to_camera(const RasterCamera& cam, const float* v, double* out) {
  for (int i = 0; i < 3; i++) out[i] = cam.r[3 * i] * v[0] + cam.r[3 * i + 1] * v[1] + cam.r[3 * i + 2] * v[2] + cam.t[i];
}

FOURD_SHARED float largest_nearness(const FourdRasterArgs& s) { return s.orthographic ? -s.near_z : 1.0f / s.near_z; }

FOURD_SHARED int clamp_pixel(double x, int low, int high) {
  return x > double(low) ? (x < double(high) ? int(x) : high) : low;  // NaN gives low
}

// p: the corners in the camera, z = 1 when orthographic; `crosses`: the face may show anywhere.
FOURD_SHARED void set_box(const FourdRasterArgs& s, const RasterCamera& cam, const double p[3][3], bool crosses, RasterFace* f) {
  f->col0 = f->row0 = 0;
  f->col1 = s.width - 1;
  f->row1 = s.height - 1;
  if (crosses) return;
  double x0 = 1e300, x1 = -1e300, y0 = 1e300, y1 = -1e300;
  for (int i = 0; i < 3; i++) {
    const double x = cam.fx * p[i][0] / p[i][2] + cam.cx, y = cam.fy * p[i][1] / p[i][2] + cam.cy;
    x0 = x < x0 ? x : x0;
    x1 = x > x1 ? x : x1;
    y0 = y < y0 ? y : y0;
    y1 = y > y1 ? y : y1;
  }
  f->col0 = clamp_pixel(ceil(x0 - 0.5 - 1e-6), 0, s.width);
  f->col1 = clamp_pixel(floor(x1 - 0.5 + 1e-6), -1, s.width - 1);
  f->row0 = clamp_pixel(ceil(y0 - 0.5 - 1e-6), 0, s.height);
  f->row1 = clamp_pixel(floor(y1 - 0.5 + 1e-6), -1, s.height - 1);
}

FOURD_SHARED void set_face(const FourdRasterArgs& s, const RasterCamera& cam, const double* const corners[3], RasterFace* f) {
  f->col0 = f->row0 = 0;
  f->col1 = f->row1 = -1;
  double p[3][3], n[3][3], z[3];
  int behind = 0;
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) p[i][j] = corners[i][j];
    z[i] = p[i][2];
    behind += z[i] < s.near_z;
    if (s.orthographic) p[i][2] = 1.0;
  }
  if (behind == 3) return;
  for (int i = 0; i < 3; i++) {
    const double *u = p[(i + 1) % 3], *v = p[(i + 2) % 3];
    n[i][0] = u[1] * v[2] - u[2] * v[1];
    n[i][1] = u[2] * v[0] - u[0] * v[2];
    n[i][2] = u[0] * v[1] - u[1] * v[0];
  }
  const double det = p[0][0] * n[0][0] + p[0][1] * n[0][1] + p[0][2] * n[0][2];
  if (!(fabs(det) > 0.0) || !(fabs(det) < INFINITY) || !(fabs(z[0] + z[1] + z[2]) < INFINITY)) return;
  if (s.cull_back && det > 0.0) return;  // the ray and the outward normal agree: seen from behind
  f->near_a = f->near_b = f->near_c = 0.0;
  for (int i = 0; i < 3; i++) {
    const double weight = s.orthographic ? -z[i] : 1.0;
    f->a[i] = n[i][0] / (cam.fx * det);
    f->b[i] = n[i][1] / (cam.fy * det);
    f->c[i] = n[i][2] / det - f->a[i] * cam.cx - f->b[i] * cam.cy;
    f->near_a += weight * f->a[i];
    f->near_b += weight * f->b[i];
    f->near_c += weight * f->c[i];
  }
  set_box(s, cam, p, behind > 0 && !s.orthographic, f);
  if (f->row0 > f->row1) f->col1 = f->col0 - 1;
}

// The results of one pixel that sees `f`, or nothing.
FOURD_SHARED void write_pixel(const FourdRasterArgs& s, const RasterFace* f, int col, int row) {
  const size_t at = size_t(row) * s.width + col;
  const double x = col + 0.5, y = row + 0.5;
  double e[3] = {0.0, 0.0, 0.0}, sum = 1.0, z = 0.0;
  if (f) {
    for (int i = 0; i < 3; i++) {
      const double value = f->a[i] * x + f->b[i] * y + f->c[i];
      e[i] = value > 0.0 ? value : 0.0;
    }
    sum = e[0] + e[1] + e[2];
    const double nearness = f->near_a * x + f->near_b * y + f->near_c;
    z = s.orthographic ? -nearness : 1.0 / nearness;
  }
  if (s.barycentrics)
    for (int i = 0; i < 3; i++) s.barycentrics[3 * at + i] = float(e[i] / sum);
  if (s.depth_z) s.depth_z[at] = float(z);
}

}  // namespace raster
}  // namespace fourd
