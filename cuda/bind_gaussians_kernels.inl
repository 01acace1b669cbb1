// The hot loop of bind_gaussians_cpu.cpp for one instruction set (see instruction_sets.inl). `block` holds kBlock Gaussians, transposed.

static void bind_block(BindBlock* block, int n) {
  for (int i = 0; i < n; i += W) {
    VF f[9];
    for (int d = 0; d < 9; d++) f[d] = load(block->frame[d] + i);
    const VF mx = load(block->mean[0] + i), my = load(block->mean[1] + i), mz = load(block->mean[2] + i);
    for (int r = 0; r < 3; r++)
      store(block->out[r] + i, load(block->origin[r] + i) + f[3 * r] * mx + f[3 * r + 1] * my + f[3 * r + 2] * mz);
    const VF xx = load(block->covariance[0] + i), xy = load(block->covariance[1] + i), xz = load(block->covariance[2] + i);
    const VF yy = load(block->covariance[3] + i), yz = load(block->covariance[4] + i), zz = load(block->covariance[5] + i);
    VF g[9];  // F C
    for (int r = 0; r < 3; r++) {
      g[3 * r] = f[3 * r] * xx + f[3 * r + 1] * xy + f[3 * r + 2] * xz;
      g[3 * r + 1] = f[3 * r] * xy + f[3 * r + 1] * yy + f[3 * r + 2] * yz;
      g[3 * r + 2] = f[3 * r] * xz + f[3 * r + 1] * yz + f[3 * r + 2] * zz;
    }
    VF c[6];
    int at = 0;
    for (int r = 0; r < 3; r++)
      for (int s = r; s < 3; s++) c[at++] = g[3 * r] * f[3 * s] + g[3 * r + 1] * f[3 * s + 1] + g[3 * r + 2] * f[3 * s + 2];
    const VF trace = c[0] + c[3] + c[5], limit = load(block->max_trace + i);
    const VF scale = select(less(limit, trace), limit / trace, broadcast(1.0f));
    for (int d = 0; d < 6; d++) store(block->out[3 + d] + i, c[d] * scale);
  }
}
