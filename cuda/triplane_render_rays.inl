// What happens along one ray, for one instruction set (included after triplane_render_kernels.inl).

// Positions of the samples from..to-1, moved by the warp, and their places in the planes.
static void place(const Job& job, Ray* r, int from, int to) {
  const float* const o = r->origin;
  const float* const d = r->direction;
  for (int i = from; i < to; i++) {
    const float t = r->distance[i];
    r->x[i] = o[0] + t * d[0];
    r->y[i] = o[1] + t * d[1];
    r->z[i] = o[2] + t * d[2];
  }
  if (job.warp.offsets)
    for (int i = from; i < to; i++) warp_point(job.warp, r->x + i, r->y + i, r->z + i);
  const SampleSet samples{r->x + from, r->y + from, r->z + from};
  const Places places = r->places.from(from);
  locate(job.field, samples, to - from, &places);
}

static void coarse_distances(const Job& job, Ray* r) {
  const FourdTriplaneRenderArgs& a = *job.args;
  const int n = a.coarse;
  const float near = a.near_distance[r->index], far = a.far_distance[r->index];
  const float* const draws = a.draw_coarse ? a.draw_coarse + r->index * n : nullptr;
  const uint32_t key = mix(uint32_t(r->index) ^ a.seed_key);
  for (int i = 0; i < n; i++) {
    float offset = a.placement == kFourdCentres ? 0.5f : 0.0f;
    if (draws) offset = draws[i];
    else if (a.placement == kFourdJitter) offset = counted_uniform(key, i);
    const float part = (float(i) + offset) / float(n - 1);
    r->distance[i] = a.disparity ? 1.0f / ((1.0f - part) / near + part / far) : near + (far - near) * part;
  }
}

// Importance samples from the coarse weights (n - 1 of them), sorted, into distance[n..].
static void fine_distances(const Job& job, Ray* r) {
  const FourdTriplaneRenderArgs& a = *job.args;
  const int n = a.coarse, bins = n - 3;
  const float* const w = r->weight;
  float* const cumulative = r->alpha;  // free at this point
  float total = 0.0f;
  for (int j = 0; j < bins; j++) {  // weight j + 1, widened
    const float left = w[j] > w[j + 1] ? w[j] : w[j + 1], right = w[j + 2] > w[j + 1] ? w[j + 2] : w[j + 1];
    r->histogram[j] = 0.5f * (left + right) + 0.01f + 1e-5f;
    total += r->histogram[j];
  }
  cumulative[0] = 0.0f;
  for (int j = 0; j < bins; j++) cumulative[j + 1] = cumulative[j] + r->histogram[j] / total;
  const float* const draws = a.draw_fine ? a.draw_fine + r->index * a.fine : nullptr;
  const uint32_t key = mix(uint32_t(r->index) ^ a.seed_key);
  const float last = a.fine > 1 ? float(a.fine - 1) : 1.0f;
  const float* const t = r->distance;
  float* const fine = r->distance + n;
  int after = 0;
  for (int i = 0; i < a.fine; i++) {
    float q = float(i) / last;
    if (draws) q = draws[i];
    else if (a.placement == kFourdJitter) q = (float(i) + counted_uniform(key, n + i)) / float(a.fine);
    else if (a.placement == kFourdCentres) q = (float(i) + 0.5f) / float(a.fine);
    while (after > 0 && cumulative[after - 1] > q) after--;
    while (after <= bins && cumulative[after] <= q) after++;
    const int below = after > 0 ? after - 1 : 0, above = after < bins ? after : bins;
    float width = cumulative[above] - cumulative[below];
    if (width < 1e-5f) width = 1.0f;
    const float start = 0.5f * (t[below] + t[below + 1]), end = 0.5f * (t[above] + t[above + 1]);
    const float found = start + (q - cumulative[below]) / width * (end - start);
    int k = i;
    for (; k > 0 && fine[k - 1] > found; k--) fine[k] = fine[k - 1];
    fine[k] = found;
  }
}

// Merge the first `coarse` coarse samples and `fine` fine ones: `order` and the distances in order.
static void merge(const Job& job, Ray* r, int coarse, int fine) {
  const int n = job.args->coarse, all = n + fine;
  int c = 0, f = n;
  for (int i = 0; i < coarse + fine; i++) {
    const bool take_fine = c >= coarse || (f < all && r->distance[f] < r->distance[c]);
    r->order[i] = take_fine ? f++ : c++;
    r->sorted_distance[i] = r->distance[r->order[i]];
  }
}

// Weights of n intervals from their opacities; returns the transmittance behind them.
static float weigh(const float* alpha, int n, float transmittance, float* weight) {
  for (int i = 0; i < n; i++) {
    weight[i] = alpha[i] * transmittance;
    transmittance *= 1.0f - alpha[i] + 1e-10f;
  }
  return transmittance;
}

// Write the ray's result from the weights of its first n intervals. A sample with no more than `cutoff` lends its part to the next
// that has more.
static void finish_ray(const Job& job, Ray* r, int n, float cutoff) {
  const FourdTriplaneRenderArgs& a = *job.args;
  float distance_sum = 0.0f, weight_sum = 0.0f, part_sum = 0.0f, lent = 0.0f;
  int count = 0;
  for (int i = 0; i <= n; i++) {
    const float before = i > 0 ? r->weight[i - 1] : 0.0f, after = i < n ? r->weight[i] : 0.0f;
    if (i < n) {
      weight_sum += after;
      distance_sum += after * (0.5f * (r->sorted_distance[i] + r->sorted_distance[i + 1]));
    }
    lent += 0.5f * (before + after);
    if (absolute_value(lent) <= cutoff) continue;  // NaN goes on
    r->which[count] = r->order[i];
    r->part[count++] = lent;
    part_sum += lent;
    lent = 0.0f;
  }
  add_colours(job.field, r->hidden, r->which, r->part, count, r->sum, nullptr);
  a.distance_sum[r->index] = distance_sum;
  a.weight_sum[r->index] = weight_sum;
  float* const out = a.features + r->index * a.outputs;
  for (int k = 0; k < a.outputs; k++) out[k] = 1.002f * r->sum[k] - 0.001f * part_sum;
}

// All samples of a ray, exactly: distances in order, densities in order, opacities, weights. Returns the number of intervals.
static int march(const Job& job, Ray* r, float* decay) {
  const int n = job.args->coarse, all = n + job.args->fine;
  coarse_distances(job, r);
  place(job, r, 0, n);
  evaluate(job.field, r->places, 0, n, r->hidden, r->density);
  if (job.args->fine) {
    opacities(r->distance, r->density, n - 1, r->alpha, nullptr);
    weigh(r->alpha, n - 1, 1.0f, r->weight);
    fine_distances(job, r);
    place(job, r, n, all);
    evaluate(job.field, r->places, n, all, r->hidden, r->density);
  }
  merge(job, r, n, job.args->fine);
  for (int i = 0; i < all; i++) r->sorted_density[i] = r->density[r->order[i]];
  opacities(r->sorted_distance, r->sorted_density, all - 1, r->alpha, decay);
  r->transmittance_end = weigh(r->alpha, all - 1, 1.0f, r->weight);
  return all - 1;
}

static void render_exactly(const Job& job, Ray* r) { finish_ray(job, r, march(job, r, nullptr), 1e-9f); }

// Mark which of the samples `order`[0..n-1] may be left out: their cell and their neighbours' are empty. Is any other there?
static bool mark_empty(const Job& job, Ray* r, const int32_t* order, int n) {
  const uint32_t* const grid = job.field.occupancy;  // null: nothing is known to be empty
  uint8_t* const occupied = r->occupied + 1;
  occupied[-1] = occupied[n] = 0;
  uint32_t any = 0;
  for (int i = 0; i < n; i++) {
    const int cell = grid ? r->places.cell[order ? order[i] : i] : kUnknownCell;
    occupied[i] = cell == kUnknownCell || (grid[cell >> 5] >> (cell & 31) & 1);
    any |= occupied[i];
  }
  for (int i = 0; i < n; i++) r->empty[order ? order[i] : i] = !(occupied[i - 1] | occupied[i] | occupied[i + 1]);
  return any;
}

constexpr int kStep = 8;  // samples looked at before the transmittance is
constexpr float kEmpty = -1e4f;

// March through n samples in `order` (null: as they lie), evaluating those that are neither known nor empty, until nothing is left to
// be seen. Leaves weights of the intervals; returns how many were reached.
static int march_skipping(const Job& job, Ray* r, const int32_t* order, int n, const float* distance) {
  float transmittance = 1.0f;
  int done = 0;  // intervals
  for (int first = 0; first < n; first += kStep) {
    const int last = first + kStep < n ? first + kStep : n;
    int count = 0, known = 0;
    for (int i = first; i < last; i++) {
      const int s = order ? order[i] : i;
      r->which[count] = s;
      count += !(r->known[s] | r->empty[s]);
      known += r->known[s];
    }
    const bool nothing = count + known == 0 && (first == 0 || r->sorted_density[first - 1] == kEmpty);
    if (nothing) {
      for (int i = first; i < last; i++) r->sorted_density[i] = kEmpty;
      for (int i = done; i < last - 1; i++) r->weight[i] = 0.0f;
    } else {
      evaluate_some(job.field, r->places, r->which, count, r->hidden, r->density);
      for (int i = 0; i < count; i++) r->known[r->which[i]] = 1;
      for (int i = first; i < last; i++) {
        const int s = order ? order[i] : i;
        r->sorted_density[i] = r->known[s] ? r->density[s] : kEmpty;
      }
      opacities(distance + done, r->sorted_density + done, last - 1 - done, r->alpha + done, nullptr);
      transmittance = weigh(r->alpha + done, last - 1 - done, transmittance, r->weight + done);
    }
    done = last - 1;
    if (transmittance < job.args->min_transmittance) break;
  }
  return done;
}

static void render_skipping(const Job& job, Ray* r) {
  const FourdTriplaneRenderArgs& a = *job.args;
  const int n = a.coarse, all = n + a.fine;
  coarse_distances(job, r);
  place(job, r, 0, n);
  int intervals = 0;
  r->order[0] = 0;
  r->sorted_distance[0] = r->distance[0];
  if (mark_empty(job, r, nullptr, n)) {
    std::memset(r->known, 0, all);
    intervals = march_skipping(job, r, nullptr, n, r->distance);
    for (int i = intervals; i < n - 1; i++) r->weight[i] = 0.0f;
    // What lies two samples and more behind the end of the ray stays unseen.
    const int seen = intervals + 3 < n ? intervals + 3 : n;
    int fine = 0;
    if (a.fine) {
      fine_distances(job, r);
      while (fine < a.fine && (seen == n || r->distance[n + fine] < r->distance[seen - 1])) fine++;
      place(job, r, n, n + fine);
    }
    merge(job, r, seen, fine);
    mark_empty(job, r, r->order, seen + fine);
    intervals = march_skipping(job, r, r->order, seen + fine, r->sorted_distance);
  }
  const float cutoff = kColourCutoff;
  float lent = 0.0f;
  for (int i = 0; i <= intervals; i++) {  // an empty sample beside a dense one needs its colour after all
    const float before = i > 0 ? r->weight[i - 1] : 0.0f, after = i < intervals ? r->weight[i] : 0.0f;
    lent += 0.5f * (before + after);
    if (lent <= cutoff) continue;
    lent = 0.0f;
    if (!r->known[r->order[i]]) evaluate_some(job.field, r->places, r->order + i, 1, r->hidden, r->density);
  }
  finish_ray(job, r, intervals, cutoff);
}

static void render_ray(const Job& job, Ray* r) {
  if (job.args->min_transmittance > 0.0f) render_skipping(job, r);
  else render_exactly(job, r);
}
