// Nearest triangles on the CPU by a tree of boxes; contract in surface_field.h.
#include "surface_field.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "bvh.h"
#include "parallel.h"

namespace fourd {
namespace {

constexpr int kLeaf = 4;
constexpr int64_t kGrain = 256;

struct Point {
  double x, y, z;
};
Point operator-(const Point& p, const Point& q) { return {p.x - q.x, p.y - q.y, p.z - q.z}; }
Point operator*(const Point& p, double s) { return {p.x * s, p.y * s, p.z * s}; }
double dot(const Point& p, const Point& q) { return p.x * q.x + p.y * q.y + p.z * q.z; }
Point cross(const Point& p, const Point& q) {
  return {p.y * q.z - p.z * q.y, p.z * q.x - p.x * q.z, p.x * q.y - p.y * q.x};
}
Point at(const float* p) { return {p[0], p[1], p[2]}; }

double inverse_or_zero(double x) { return x > 0.0 ? 1.0 / x : 0.0; }

// Squared distance to the segment from `a` along `edge` to `b`; the ends themselves are taken at the ends.
double to_edge(const Point& p, const Point& a, const Point& b, const Point& edge, double inverse_length) {
  const Point from = p - a;
  const double along = dot(from, edge) * inverse_length;
  if (along <= 0.0) return dot(from, from);
  if (along >= 1.0) {
    const Point to = p - b;
    return dot(to, to);
  }
  const Point off = from - edge * along;
  return dot(off, off);
}

// A triangle with its corners in the order of their indices.
struct Triangle {
  Point a, b, c, ab, ac, bc;
  Point to_b, to_c, normal;  // barycentrics 1 and 2 of p are (p - a) . to_b and . to_c; `normal` has length 1
  double inverse_ab, inverse_ac, inverse_bc;
  bool solid;  // not only its edges count

  double squared_distance(const Point& p) const {
    double least = std::numeric_limits<double>::infinity();
    bool past_ab = true, past_ac = true, past_bc = true;
    if (solid) {
      const Point from = p - a;
      const double weight_b = dot(from, to_b), weight_c = dot(from, to_c), weight_a = 1.0 - weight_b - weight_c;
      past_ab = weight_c < 0.0;
      past_ac = weight_b < 0.0;
      past_bc = weight_a < 0.0;
      if (!past_ab && !past_ac && !past_bc) {
        const double height = dot(from, normal);
        return height * height;
      }
    }
    // Outside, the nearest point lies on an edge that the point is beyond.
    if (past_ab) least = std::min(least, to_edge(p, a, b, ab, inverse_ab));
    if (past_ac) least = std::min(least, to_edge(p, a, c, ac, inverse_ac));
    if (past_bc) least = std::min(least, to_edge(p, b, c, bc, inverse_bc));
    return least;
  }
};

Triangle triangle_of(const float* vertices, const int32_t* face, double min_area) {
  int32_t i[3] = {face[0], face[1], face[2]};
  std::sort(i, i + 3);
  Triangle t;
  t.a = at(vertices + 3 * size_t(i[0]));
  t.b = at(vertices + 3 * size_t(i[1]));
  t.c = at(vertices + 3 * size_t(i[2]));
  t.ab = t.b - t.a;
  t.ac = t.c - t.a;
  t.bc = t.c - t.b;
  t.inverse_ab = inverse_or_zero(dot(t.ab, t.ab));
  t.inverse_ac = inverse_or_zero(dot(t.ac, t.ac));
  t.inverse_bc = inverse_or_zero(dot(t.bc, t.bc));
  const Point n = cross(t.ab, t.ac);
  const double squared = dot(n, n), inverse = inverse_or_zero(squared);
  t.to_b = cross(t.ac, n) * inverse;
  t.to_c = cross(n, t.ab) * inverse;
  t.normal = n * std::sqrt(inverse);
  t.solid = squared > 0.0 && 0.5 * std::sqrt(squared) >= min_area;
  return t;
}

struct Workspace {
  BoxTree tree;
  Scratch<Triangle> triangles;
  Scratch<float> low, high;
  Scratch<int32_t> chosen;
};

// Lay out all triangles and list the finite ones; returns how many they are, or -1 when an index is out of range.
int32_t set_up(const FourdSurfaceFieldArgs& s, const float* vertices, int threads, Workspace* w) {
  Triangle* triangles = w->triangles.reserve(size_t(s.face_count));
  float* low = w->low.reserve(3 * size_t(s.face_count));
  float* high = w->high.reserve(3 * size_t(s.face_count));
  std::atomic<bool> bad_index{false};
  parallel_ranges(threads, s.face_count, 2048, [&](int64_t begin, int64_t end, int) {
    if (!indices_fit(s.faces + 3 * begin, 3 * (end - begin), s.vertex_count)) {
      bad_index = true;
      return;
    }
    for (int64_t f = begin; f < end; f++) {
      triangles[f] = triangle_of(vertices, s.faces + 3 * f, s.min_triangle_area);
      for (int i = 0; i < 3; i++) {
        float corner[3];
        for (int j = 0; j < 3; j++) corner[j] = vertices[3 * size_t(s.faces[3 * f + j]) + i];
        low[3 * f + i] = std::min(std::min(corner[0], corner[1]), corner[2]);
        high[3 * f + i] = std::max(std::max(corner[0], corner[1]), corner[2]);
      }
    }
  });
  if (bad_index) return -1;
  int32_t* chosen = w->chosen.reserve(size_t(s.face_count));
  int32_t count = 0;
  for (int64_t f = 0; f < s.face_count; f++) {
    bool finite = true;
    for (int j = 0; j < 9; j++) finite &= std::isfinite(vertices[3 * size_t(s.faces[3 * f + j / 3]) + j % 3]);
    if (finite) chosen[count++] = int32_t(f);
  }
  return count;
}

int32_t search_point(const Workspace& w, const Point& p, int32_t guess) {
  const Triangle* triangles = w.triangles.data();
  const int32_t* order = w.tree.order();
  int32_t found = guess;
  double least = triangles[guess].squared_distance(p);
  const double centre[3] = {p.x, p.y, p.z};
  w.tree.search(centre, least, [&](int32_t first, int32_t count) {
    for (int32_t n = first; n < first + count; n++) {
      const int32_t index = order[n];
      const double here = triangles[index].squared_distance(p);
      if (here < least || (here == least && index < found)) {
        least = here;
        found = index;
      }
    }
  });
  return found;
}

// The numbers of one point relative to its face, with the corners in the face's own order.
void write_point(const FourdSurfaceFieldArgs& s, const float* vertices, const Triangle& triangle, int64_t place, int64_t face) {
  const int32_t* index = s.faces + 3 * face;
  const Point p = at(s.points + 3 * place), v0 = at(vertices + 3 * size_t(index[0]));
  const Point e1 = at(vertices + 3 * size_t(index[1])) - v0, e2 = at(vertices + 3 * size_t(index[2])) - v0;
  const Point n = cross(e1, e2), from = p - v0;
  const double squared = dot(n, n), inverse = 1.0 / squared;
  double b1 = 1.0 / 3.0, b2 = 1.0 / 3.0, height = 0.0;
  if (squared != 0.0) {
    b1 = dot(from, cross(e2, n)) * inverse;
    b2 = dot(from, cross(n, e1)) * inverse;
    height = dot(from, n) / std::sqrt(squared);
  }
  s.face_index[place] = face;
  s.barycentrics[3 * place] = float(1.0 - b1 - b2);
  s.barycentrics[3 * place + 1] = float(b1);
  s.barycentrics[3 * place + 2] = float(b2);
  s.signed_distance[place] = float(height);
  s.squared_distance[place] = float(triangle.squared_distance(p));
}

int run(const FourdSurfaceFieldArgs& s, Workspace* w) {
  const int threads = max_threads(s.threads);
  for (int64_t b = 0; b < s.batch; b++) {
    const float* vertices = s.vertices + 3 * b * s.vertex_count;
    const int32_t count = set_up(s, vertices, threads, w);
    if (count < 0) return kBadIndex;
    w->tree.build(w->low.data(), w->high.data(), w->chosen.data(), count, kLeaf);
    const Triangle* triangles = w->triangles.data();
    parallel_ranges(threads, s.point_count, kGrain, [&](int64_t begin, int64_t end, int) {
      int32_t guess = count > 0 ? w->chosen.data()[0] : 0;  // neighbours in the list are mostly neighbours in space
      for (int64_t n = begin; n < end; n++) {
        const int64_t place = b * s.point_count + n;
        const Point p = at(s.points + 3 * place);
        const bool found = count > 0 && std::isfinite(p.x) && std::isfinite(p.y) && std::isfinite(p.z);
        if (found) guess = search_point(*w, p, guess);
        const int32_t face = found ? guess : 0;
        write_point(s, vertices, triangles[face], place, face);
      }
    });
  }
  return kOk;
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_surface_field(const FourdSurfaceFieldArgs* args) {
  if (args->batch < 0 || args->point_count < 0 || args->vertex_count < 0 || args->face_count < 1 || args->face_count >= INT32_MAX ||
      !(args->min_triangle_area >= 0.0f))
    return fourd::kBadArgument;
  static thread_local fourd::Workspace workspace;
  try {
    return fourd::run(*args, &workspace);
  } catch (const std::bad_alloc&) {
    return fourd::kOutOfMemory;
  }
}
