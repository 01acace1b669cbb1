// The distance of a point to one triangle, for the CPU (double) and the CUDA (float) search; contract in surface_field.h.
#pragma once
#include <cmath>

#include "surface_field.h"

namespace fourd {
namespace surface {

template <typename Real>
struct Point {
  Real x, y, z;
};
template <typename Real>
FOURD_SHARED Point<Real> operator-(const Point<Real>& p, const Point<Real>& q) {
  return {p.x - q.x, p.y - q.y, p.z - q.z};
}
template <typename Real>
FOURD_SHARED Point<Real> operator*(const Point<Real>& p, Real s) {
  return {p.x * s, p.y * s, p.z * s};
}
template <typename Real>
FOURD_SHARED Real dot(const Point<Real>& p, const Point<Real>& q) {
  return p.x * q.x + p.y * q.y + p.z * q.z;
}
template <typename Real>
FOURD_SHARED Point<Real> cross(const Point<Real>& p, const Point<Real>& q) {
  return {p.y * q.z - p.z * q.y, p.z * q.x - p.x * q.z, p.x * q.y - p.y * q.x};
}
template <typename Real>
FOURD_SHARED Point<Real> point_at(const float* p) {
  return {Real(p[0]), Real(p[1]), Real(p[2])};
}
template <typename Real>
FOURD_SHARED Real inverse_or_zero(Real x) {
  return x > Real(0) ? Real(1) / x : Real(0);
}

// Squared distance to the segment from `a` along `edge` to `b`; at the ends it is that to the end itself.
template <typename Real>
FOURD_SHARED Real to_edge(
    const Point<Real>& p, const Point<Real>& a, const Point<Real>& b, const Point<Real>& edge, Real inverse_length) {
  const Point<Real> from = p - a;
  const Real along = dot(from, edge) * inverse_length;
  if (along <= Real(0)) return dot(from, from);
  if (along >= Real(1)) {
    const Point<Real> to = p - b;
    return dot(to, to);
  }
  const Point<Real> off = from - edge * along;
  return dot(off, off);
}

// A triangle with its corners in the order of their indices.
template <typename Real>
struct SurfaceTriangle {
  Point<Real> a, b, c, ab, ac, bc;
  Point<Real> to_b, to_c, normal;  // barycentrics 1 and 2 of p are (p - a) . to_b and . to_c; `normal` has length 1
  Real inverse_ab, inverse_ac, inverse_bc;
  bool solid;  // not only its edges count

  FOURD_SHARED Real squared_distance(const Point<Real>& p) const {
    bool past_ab = true, past_ac = true, past_bc = true;
    if (solid) {
      const Point<Real> from = p - a;
      const Real weight_b = dot(from, to_b), weight_c = dot(from, to_c), weight_a = Real(1) - weight_b - weight_c;
      past_ab = weight_c < Real(0);
      past_ac = weight_b < Real(0);
      past_bc = weight_a < Real(0);
      if (!past_ab && !past_ac && !past_bc) {
        const Real height = dot(from, normal);
        return height * height;
      }
    }
    // Outside, the nearest point lies on an edge that the point is beyond.
    Real least = INFINITY;
    if (past_ab) least = lesser(least, to_edge(p, a, b, ab, inverse_ab));
    if (past_ac) least = lesser(least, to_edge(p, a, c, ac, inverse_ac));
    if (past_bc) least = lesser(least, to_edge(p, b, c, bc, inverse_bc));
    return least;
  }

 private:
  static FOURD_SHARED Real lesser(Real x, Real y) { return y < x ? y : x; }
};

template <typename Real>
FOURD_SHARED SurfaceTriangle<Real> surface_triangle(const float* vertices, const int32_t* face, float min_area) {
  int32_t i[3] = {face[0], face[1], face[2]};
  for (int n = 0; n < 3; n++) {  // sort three
    const int j = n == 1 ? 1 : 0;
    if (i[j] > i[j + 1]) {
      const int32_t lower = i[j + 1];
      i[j + 1] = i[j];
      i[j] = lower;
    }
  }
  SurfaceTriangle<Real> t;
  t.a = point_at<Real>(vertices + 3 * size_t(i[0]));
  t.b = point_at<Real>(vertices + 3 * size_t(i[1]));
  t.c = point_at<Real>(vertices + 3 * size_t(i[2]));
  t.ab = t.b - t.a;
  t.ac = t.c - t.a;
  t.bc = t.c - t.b;
  t.inverse_ab = inverse_or_zero(dot(t.ab, t.ab));
  t.inverse_ac = inverse_or_zero(dot(t.ac, t.ac));
  t.inverse_bc = inverse_or_zero(dot(t.bc, t.bc));
  const Point<Real> n = cross(t.ab, t.ac);
  const Real squared = dot(n, n), inverse = inverse_or_zero(squared);
  t.to_b = cross(t.ac, n) * inverse;
  t.to_c = cross(n, t.ab) * inverse;
  t.normal = n * Real(sqrt(inverse));
  t.solid = squared > Real(0) && Real(0.5) * Real(sqrt(squared)) >= Real(min_area);
  return t;
}

// The numbers of point `place` relative to its face, with the corners in the face's own order. Always in double.
FOURD_SHARED void write_surface_point(
    const FourdSurfaceFieldArgs& s, const float* vertices, const SurfaceTriangle<double>& triangle, int64_t place, int64_t face) {
  const int32_t* index = s.faces + 3 * face;
  const Point<double> p = point_at<double>(s.points + 3 * place), v0 = point_at<double>(vertices + 3 * size_t(index[0]));
  const Point<double> e1 = point_at<double>(vertices + 3 * size_t(index[1])) - v0;
  const Point<double> e2 = point_at<double>(vertices + 3 * size_t(index[2])) - v0;
  const Point<double> n = cross(e1, e2), from = p - v0;
  const double squared = dot(n, n), inverse = 1.0 / squared;
  double b1 = 1.0 / 3.0, b2 = 1.0 / 3.0, height = 0.0;
  if (squared != 0.0) {
    b1 = dot(from, cross(e2, n)) * inverse;
    b2 = dot(from, cross(n, e1)) * inverse;
    height = dot(from, n) / sqrt(squared);
  }
  s.face_index[place] = face;
  s.barycentrics[3 * place] = float(1.0 - b1 - b2);
  s.barycentrics[3 * place + 1] = float(b1);
  s.barycentrics[3 * place + 2] = float(b2);
  s.signed_distance[place] = float(height);
  s.squared_distance[place] = float(triangle.squared_distance(p));
}

}  // namespace surface
}  // namespace fourd
