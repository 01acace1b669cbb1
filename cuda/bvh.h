// A tree of boxes over points or triangles, for nearest-neighbour searches on the CPU.
//
// Built by halving at the median along the longest side of the boxes' centres, so it is balanced whatever the input, and the
// same on every run. Boxes are float32 and exact; distances are in double.
#pragma once

#include <algorithm>
#include <cmath>

#include "common.h"

namespace fourd {

class BoxTree {
 public:
  struct Node {
    float low[3], high[3];
    int32_t first, count;  // a leaf's place in order(); count 0 = inner node, whose left child is the next node
    int32_t right;
  };

  // low and high [items, 3] (the same pointer for points) of all items; the tree is over the `count` items named in `chosen`.
  void build(const float* low, const float* high, const int32_t* chosen, int32_t count, int32_t leaf) {
    low_ = low;
    high_ = high;
    leaf_ = leaf;
    used_ = 0;
    order_.reserve(size_t(count) + 1);
    nodes_.reserve(2 * size_t(count) + 1);
    std::copy(chosen, chosen + count, order_.data());
    if (count > 0) split(0, count);
  }

  const int32_t* order() const { return order_.data(); }
  bool empty() const { return used_ == 0; }

  // Call visit(first, count) for every leaf nearer to p than `limit`, a squared distance that visit lowers; nearest first.
  template <typename Visit>
  void search(const double* p, const double& limit, Visit&& visit) const {
    struct Waiting {
      int32_t node;
      double distance;
    } stack[64];
    const Node* nodes = nodes_.data();
    if (empty()) return;
    int depth = 0;
    stack[depth++] = {0, distance(nodes[0], p)};
    while (depth > 0) {
      const Waiting next = stack[--depth];
      if (next.distance > limit * kSlack) continue;
      const Node& node = nodes[next.node];
      if (node.count > 0) {
        visit(node.first, node.count);
        continue;
      }
      const int32_t left = next.node + 1;
      const double to_left = distance(nodes[left], p), to_right = distance(nodes[node.right], p);
      if (to_left <= to_right) {
        stack[depth++] = {node.right, to_right};
        stack[depth++] = {left, to_left};
      } else {
        stack[depth++] = {left, to_left};
        stack[depth++] = {node.right, to_right};
      }
    }
  }

 private:
  static constexpr double kSlack = 1.0 + 1e-12;  // equal distances may differ in the last bits

  static double distance(const Node& node, const double* p) {
    double sum = 0.0;
    for (int i = 0; i < 3; i++) {
      const double outside = std::max(std::max(node.low[i] - p[i], p[i] - node.high[i]), 0.0);
      sum += outside * outside;
    }
    return sum;
  }

  int32_t split(int32_t first, int32_t count) {
    int32_t* order = order_.data();
    const int32_t at = used_++;
    Node node{};
    float centre_low[3], centre_high[3];
    for (int i = 0; i < 3; i++) {
      node.low[i] = centre_low[i] = INFINITY;
      node.high[i] = centre_high[i] = -INFINITY;
      for (int32_t n = first; n < first + count; n++) {
        const float low = low_[3 * size_t(order[n]) + i], high = high_[3 * size_t(order[n]) + i];
        node.low[i] = std::min(node.low[i], low);
        node.high[i] = std::max(node.high[i], high);
        centre_low[i] = std::min(centre_low[i], 0.5f * low + 0.5f * high);
        centre_high[i] = std::max(centre_high[i], 0.5f * low + 0.5f * high);
      }
    }
    node.first = first;
    node.count = count <= leaf_ ? count : 0;
    if (node.count == 0) {
      int axis = 0;
      for (int i = 1; i < 3; i++)
        if (centre_high[i] - centre_low[i] > centre_high[axis] - centre_low[axis]) axis = i;
      const int32_t half = count / 2;
      std::nth_element(order + first, order + first + half, order + first + count, [&](int32_t a, int32_t b) {
        const float x = 0.5f * low_[3 * size_t(a) + axis] + 0.5f * high_[3 * size_t(a) + axis];
        const float y = 0.5f * low_[3 * size_t(b) + axis] + 0.5f * high_[3 * size_t(b) + axis];
        return x != y ? x < y : a < b;
      });
      split(first, half);
      node.right = split(first + half, count - half);
    }
    nodes_.data()[at] = node;
    return at;
  }

  const float* low_ = nullptr;
  const float* high_ = nullptr;
  int32_t leaf_ = 1, used_ = 0;
  Scratch<int32_t> order_;
  Scratch<Node> nodes_;
};

}  // namespace fourd
