// Nearest triangles on the CPU by a tree of boxes; contract in surface_field.h.
#include "surface_field.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "bvh.h"
#include "parallel.h"
#include "surface_triangle.inl"

namespace fourd {
namespace {

using namespace surface;

constexpr int kLeaf = 4;
constexpr int64_t kGrain = 256;

struct Workspace {
  BoxTree tree;
  Scratch<SurfaceTriangle<double>> triangles;
  Scratch<float> low, high;
  Scratch<int32_t> chosen;
};

// Lay out all triangles and list the finite ones; returns how many they are, or -1 when an index is out of range.
int32_t set_up(const FourdSurfaceFieldArgs& s, const float* vertices, int threads, Workspace* w) {
  SurfaceTriangle<double>* triangles = w->triangles.reserve(size_t(s.face_count));
  float* low = w->low.reserve(3 * size_t(s.face_count));
  float* high = w->high.reserve(3 * size_t(s.face_count));
  std::atomic<bool> bad_index{false};
  parallel_ranges(threads, s.face_count, 2048, [&](int64_t begin, int64_t end, int) {
    if (!indices_fit(s.faces + 3 * begin, 3 * (end - begin), s.vertex_count)) {
      bad_index = true;
      return;
    }
    for (int64_t f = begin; f < end; f++) {
      triangles[f] = surface_triangle<double>(vertices, s.faces + 3 * f, s.min_triangle_area);
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

int32_t search_point(const Workspace& w, const Point<double>& p, int32_t guess) {
  const SurfaceTriangle<double>* triangles = w.triangles.data();
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

int run(const FourdSurfaceFieldArgs& s, Workspace* w) {
  const int threads = max_threads(s.threads);
  for (int64_t b = 0; b < s.batch; b++) {
    const float* vertices = s.vertices + 3 * b * s.vertex_count;
    const int32_t count = set_up(s, vertices, threads, w);
    if (count < 0) return kBadIndex;
    w->tree.build(w->low.data(), w->high.data(), w->chosen.data(), count, kLeaf);
    const SurfaceTriangle<double>* triangles = w->triangles.data();
    parallel_ranges(threads, s.point_count, kGrain, [&](int64_t begin, int64_t end, int) {
      int32_t guess = count > 0 ? w->chosen.data()[0] : 0;  // neighbours in the list are mostly neighbours in space
      for (int64_t n = begin; n < end; n++) {
        const int64_t place = b * s.point_count + n;
        const Point<double> p = point_at<double>(s.points + 3 * place);
        const bool found = count > 0 && std::isfinite(p.x) && std::isfinite(p.y) && std::isfinite(p.z);
        if (found) guess = search_point(*w, p, guess);
        const int32_t face = found ? guess : 0;
        write_surface_point(s, vertices, triangles[face], place, face);
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
