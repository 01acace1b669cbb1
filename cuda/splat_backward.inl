// The backward pass of splat_cpu.cpp (included there, once).
//
// The forward pass is run again up to the sorted lists, which costs less than keeping them between the two. Then per tile: front to back,
// noting alphas and transmittances (record); back to front, collecting what each Gaussian gets (collect). Each (tile, Gaussian) pair has
// its own row of sums; the rows of a Gaussian are added in the order of the tiles, whichever thread does it. At last the projection is
// gone through backwards, again in blocks with vector code.

FourdSplatBackwardArgs backward_for_camera(const FourdSplatBackwardArgs& all, int c) {
  FourdSplatBackwardArgs b = all;
  const size_t pixels = size_t(all.scene.width) * all.scene.height * c;
  b.scene = for_camera(all.scene, c);
  if (b.grad_image) b.grad_image += pixels * all.scene.channels;
  if (b.grad_alpha) b.grad_alpha += pixels;
  if (b.grad_depth_z) b.grad_depth_z += pixels;
  b.grad_colors += all.scene.color_stride * c;
  b.grad_world_to_camera += 16 * c;
  return b;
}

// Fill the pixels' gradients of one tile, block by block, and the light behind everything; add the background's gradient.
void prepare_tile(const FourdSplatBackwardArgs& b, int x0, int y0, const float* transmittance, float* gradient, float* behind,
                  float* background) {
  const FourdSplatArgs& s = b.scene;
  const size_t stride = size_t(kPixels) * (1 + s.channels);
  std::memset(gradient, 0, kBlocks * stride * sizeof(float));
  std::memset(behind, 0, size_t(kBlocks) * kPixels * sizeof(float));
  for (int block = 0; block < kBlocks; block++) {
    for (int p = 0; p < kPixels; p++) {
      const int col = x0 + int(kBlockX[block] + kPixelX[p]), row = y0 + int(kBlockY[block] + kPixelY[p]);
      if (col >= s.width || row >= s.height) continue;
      const size_t at = size_t(row) * s.width + col;
      float* const pixel = gradient + block * stride + p;
      const float alpha = s.alpha[at], by_depth = b.grad_depth_z && alpha > 0.0f ? b.grad_depth_z[at] / alpha : 0.0f;
      const float by_alpha = (b.grad_alpha ? b.grad_alpha[at] : 0.0f) - by_depth * s.depth_z[at];
      pixel[0] = by_depth;
      float light = -by_alpha;  // by transmittance
      if (b.grad_image) {
        const float t = std::fabs(transmittance[block * kPixels + p]);
        for (int d = 0; d < s.channels; d++) {
          const float g = b.grad_image[at * s.channels + d];
          pixel[(1 + d) * kPixels] = g;
          if (s.background) light += g * s.background[d];
          if (background) background[d] += t * g;
        }
      }
      behind[block * kPixels + p] = light;
    }
  }
}

// One tile. `sums` [count, kSums + D] gets the row of every Gaussian of its list.
void collect_from_tile(const FourdSplatBackwardArgs& b, const Kernels& k, const Projected* projected, uint64_t* order, int64_t count, int x0,
                       int y0, float* sums, float* background, ThreadScratch* t) {
  const FourdSplatArgs& s = b.scene;
  const size_t stride = size_t(kPixels) * (1 + s.channels), row = size_t(kSums) + s.channels;
  if (background) std::memset(background, 0, size_t(s.channels) * sizeof(float));
  float* const transmittance = t->tile.reserve(kBlocks * (stride + 2 * kPixels) + size_t(s.channels) * 16);
  float* const behind = transmittance + kBlocks * kPixels;
  float* const gradient = behind + kBlocks * kPixels;
  float* const scratch = gradient + kBlocks * stride;
  for (int block = 0; block < kBlocks; block++) {
    for (int p = 0; p < kPixels; p++) {
      const int col = x0 + int(kBlockX[block] + kPixelX[p]), line = y0 + int(kBlockY[block] + kPixelY[p]);
      transmittance[block * kPixels + p] = (line < s.height && col < s.width) ? 1.0f : -1.0f;
    }
  }
  sort_keys(order, count, &t->sort);
  std::memset(sums, 0, size_t(count) * row * sizeof(float));
  const int64_t visits = k.record(projected, order, count, float(x0), float(y0), transmittance, &t->visits);
  prepare_tile(b, x0, y0, transmittance, gradient, behind, background);
  const PixelGradients pixels{float(x0), float(y0), gradient, stride, behind};
  k.collect(projected, order, t->visits.data(), visits, pixels, s.colors, s.channels, sums, scratch);
}

// Add the rows of the Gaussians first..last-1 to `sums` [N, kSums + 1] (the last one says that there was a row) and the colours.
void add_rows(const FourdSplatBackwardArgs& b, const uint64_t* order, int64_t pairs, const float* rows, int64_t first, int64_t last,
              float* sums) {
  const int channels = b.scene.channels;
  std::memset(sums + first * (kSums + 1), 0, size_t(last - first) * (kSums + 1) * sizeof(float));
  for (int64_t p = 0; p < pairs; p++) {
    const int64_t g = int64_t(uint32_t(order[p]));
    if (g < first || g >= last) continue;
    const float* row = rows + p * (kSums + channels);
    float* to = sums + g * (kSums + 1);
    for (int i = 0; i < kSums; i++) to[i] += row[i];
    to[kSums] = 1.0f;
    float* color = b.grad_colors + g * channels;
    for (int d = 0; d < channels; d++) color[d] += row[kSums + d];
  }
}

void project_back_chunk(const FourdSplatBackwardArgs& b, const CameraConstants& cam, const Kernels& k, const float* sums, int64_t begin,
                        int64_t end, double* camera, GradientBatch* batch) {
  for (int64_t first = begin; first < end; first += kBatch) {
    const int n = int(std::min<int64_t>(kBatch, end - first));
    transpose_in(b.scene, first, n, batch->in);
    std::memset(batch->touched, 0, sizeof(batch->touched));
    for (int i = 0; i < n; i++) {
      const float* from = sums + (first + i) * (kSums + 1);
      for (int d = 0; d < kSums; d++) batch->sums[d][i] = from[d];
      batch->touched[i] = from[kSums];
    }
    k.project_back(batch, cam, n, camera);
    for (int i = 0; i < n; i++) {
      for (int d = 0; d < 3; d++) b.grad_means[3 * (first + i) + d] += batch->out[d][i];
      for (int d = 0; d < 6; d++) b.grad_covariances[6 * (first + i) + d] += batch->out[3 + d][i];
      b.grad_opacities[first + i] += batch->out[9][i];
    }
  }
}

void draw_back(const FourdSplatBackwardArgs& b, Workspace* w) {
  const FourdSplatArgs& s = b.scene;
  const CameraConstants cam = camera_constants(s);
  const Kernels k = kernels();
  const int asked = max_threads(s.threads);
  const int64_t pairs = list_pairs(s, cam, k, asked, w);
  const int tiles_x = (s.width + kTile - 1) / kTile, tiles_y = (s.height + kTile - 1) / kTile;
  const int64_t tiles = int64_t(tiles_x) * tiles_y;
  const size_t row = size_t(kSums) + s.channels;
  const int64_t* starts = w->starts.data();
  uint64_t* order = w->order.data();
  float* rows = w->pair_sums.reserve(size_t(pairs) * row + 1);
  float* background = b.grad_background ? w->background.reserve(size_t(tiles) * s.channels) : nullptr;
  parallel_for(asked, tiles, [&](int64_t tile, int worker) {
    collect_from_tile(b, k, w->projected.data(), order + starts[tile], starts[tile + 1] - starts[tile], int(tile % tiles_x) * kTile,
                      int(tile / tiles_x) * kTile, rows + starts[tile] * row, background ? background + tile * s.channels : nullptr,
                      &w->threads[worker]);
  });
  if (background) {
    for (int d = 0; d < s.channels; d++) {
      double sum = 0.0;
      for (int64_t tile = 0; tile < tiles; tile++) sum += background[tile * s.channels + d];
      b.grad_background[d] += float(sum);
    }
  }

  float* sums = w->sums.reserve(size_t(s.count) * (kSums + 1) + 1);
  parallel_for(asked, asked, [&](int64_t part, int) {
    add_rows(b, order, pairs, rows, s.count * part / asked, s.count * (part + 1) / asked, sums);
  });
  const int64_t chunks = (s.count + kChunk - 1) / kChunk;
  double* camera = w->camera.reserve(size_t(chunks) * 12 + 1);
  std::memset(camera, 0, size_t(chunks) * 12 * sizeof(double));
  parallel_ranges(asked, s.count, kChunk, [&](int64_t begin, int64_t end, int worker) {
    project_back_chunk(b, cam, k, sums, begin, end, camera + begin / kChunk * 12, &w->threads[worker].gradients);
  });
  for (int d = 0; d < 12; d++) {
    double sum = 0.0;
    for (int64_t chunk = 0; chunk < chunks; chunk++) sum += camera[chunk * 12 + d];
    b.grad_world_to_camera[d] += float(sum);
  }
}
