// Nearest vertices on the CPU by a tree of boxes; contract in nearest_vertices.h.
#include "nearest_vertices.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "bvh.h"
#include "parallel.h"

namespace fourd {
namespace {

constexpr int kLeaf = 8;
constexpr int64_t kGrain = 512;

struct Found {
  double distance;
  int32_t index;
  bool operator<(const Found& other) const {
    return distance != other.distance ? distance < other.distance : index < other.index;
  }
};

struct Workspace {
  BoxTree tree;
  Scratch<int32_t> finite;  // the subset's finite vertices
  Scratch<int32_t> broken;  // and the others, in rising order
  Scratch<Found> best;      // k for each thread
};

double squared(const float* p, const float* q) {
  const double x = double(p[0]) - q[0], y = double(p[1]) - q[1], z = double(p[2]) - q[2];
  return x * x + y * y + z * z;
}

bool finite(const float* p) { return std::isfinite(p[0]) && std::isfinite(p[1]) && std::isfinite(p[2]); }

// Keep `best` the k smallest so far, in rising order.
void insert(Found* best, int k, const Found& found) {
  if (!(found < best[k - 1])) return;
  int at = k - 1;
  for (; at > 0 && found < best[at - 1]; at--) best[at] = best[at - 1];
  best[at] = found;
}

struct Mesh {
  const float* vertices;
  const int32_t* broken;
  const BoxTree* tree;
  int32_t finite_count;
  const int32_t* lowest;  // the k lowest indices of the subset, for points that are not finite
};

void search_point(const Mesh& mesh, const float* point, int k, Found* best) {
  const int found_count = std::min(k, int(mesh.finite_count));
  if (!finite(point)) {
    for (int i = 0; i < k; i++) best[i] = {0.0, mesh.lowest[i]};
    return;
  }
  const double p[3] = {point[0], point[1], point[2]};
  const double infinity = std::numeric_limits<double>::infinity();
  std::fill(best, best + k, Found{infinity, std::numeric_limits<int32_t>::max()});
  if (found_count > 0) {
    const int32_t* order = mesh.tree->order();
    double limit = infinity;
    mesh.tree->search(p, limit, [&](int32_t first, int32_t count) {
      for (int32_t n = first; n < first + count; n++)
        insert(best, found_count, {squared(point, mesh.vertices + 3 * size_t(order[n])), order[n]});
      limit = best[found_count - 1].distance;
    });
  }
  for (int i = found_count; i < k; i++) best[i].index = mesh.broken[i - found_count];
}

int run(const FourdNearestVerticesArgs& s, Workspace* w) {
  if (s.subset && !indices_fit(s.subset, s.subset_count, s.vertex_count)) return kBadIndex;
  const int threads = max_threads(s.threads);
  const int k = s.k;
  int32_t* chosen = w->finite.reserve(2 * size_t(s.subset_count) + 1);
  int32_t* broken = w->broken.reserve(size_t(s.subset_count) + 1);
  int32_t* all = chosen + s.subset_count;
  for (int64_t i = 0; i < s.subset_count; i++) all[i] = s.subset ? s.subset[i] : int32_t(i);
  if (s.subset) std::sort(all, all + s.subset_count);
  Found* best = w->best.reserve(size_t(threads) * k);
  for (int64_t b = 0; b < s.batch; b++) {
    const float* vertices = s.vertices + 3 * b * s.vertex_count;
    int32_t finite_count = 0, broken_count = 0;
    for (int64_t i = 0; i < s.subset_count; i++) {
      if (finite(vertices + 3 * size_t(all[i]))) chosen[finite_count++] = all[i];
      else broken[broken_count++] = all[i];
    }
    w->tree.build(vertices, vertices, chosen, finite_count, kLeaf);
    const Mesh mesh{vertices, broken, &w->tree, finite_count, all};
    parallel_ranges(threads, s.point_count, kGrain, [&](int64_t begin, int64_t end, int worker) {
      Found* mine = best + size_t(worker) * k;
      for (int64_t n = begin; n < end; n++) {
        const int64_t at = b * s.point_count + n;
        search_point(mesh, s.points + 3 * at, k, mine);
        for (int i = 0; i < k; i++) {
          s.indices[at * k + i] = mine[i].index;
          s.squared_distance[at * k + i] = float(squared(s.points + 3 * at, vertices + 3 * size_t(mine[i].index)));
        }
      }
    });
  }
  return kOk;
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_nearest_vertices(const FourdNearestVerticesArgs* args) {
  if (args->batch < 0 || args->point_count < 0 || args->vertex_count < 0 || args->vertex_count >= INT32_MAX || args->k < 1 ||
      args->k > args->subset_count || args->subset_count >= INT32_MAX)
    return fourd::kBadArgument;
  static thread_local fourd::Workspace workspace;
  try {
    return fourd::run(*args, &workspace);
  } catch (const std::bad_alloc&) {
    return fourd::kOutOfMemory;
  }
}
