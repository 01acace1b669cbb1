// Runs the lanes of a block in turns, forwards or backwards: a result that depends on it lacks a barrier.
#include "cuda_runtime.h"

namespace emulated {

std::vector<Lane> lanes;
int current;
ucontext_t scheduler;
dim3 block_index, block_size, grid_size;
float* shared_memory;
uint64_t exchanged[kMostLanes];

namespace {

constexpr size_t kStack = 1 << 16;
std::function<void()>* running;
bool backwards = false;

void enter() {
  (*running)();
  lanes[current].done = true;
  for (;;) swapcontext(&lanes[current].context, &scheduler);
}

void run_block(std::vector<char>* stacks) {
  const int count = int(block_size.x);
  lanes.assign(count, Lane());
  for (int i = 0; i < count; i++) {
    getcontext(&lanes[i].context);
    lanes[i].context.uc_stack.ss_sp = stacks->data() + i * kStack;
    lanes[i].context.uc_stack.ss_size = kStack;
    makecontext(&lanes[i].context, enter, 0);
  }
  for (bool alive = true; alive;) {
    alive = false;
    for (int k = 0; k < count; k++) {
      current = backwards ? count - 1 - k : k;
      if (lanes[current].done) continue;
      alive = true;
      swapcontext(&scheduler, &lanes[current].context);
    }
  }
}

}  // namespace

void launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t, std::function<void()> body) {
  std::vector<char> stacks(block.x * kStack);
  std::vector<float> memory(shared_bytes / sizeof(float) + 1);
  running = &body;
  block_size = block;
  grid_size = grid;
  for (unsigned y = 0; y < grid.y; y++)
    for (unsigned x = 0; x < grid.x; x++) {
      block_index = dim3(x, y);
      memory.assign(memory.size(), NAN);
      shared_memory = memory.data();
      run_block(&stacks);
    }
}

}  // namespace emulated

extern "C" void emulated_backwards(int on) { emulated::backwards = on != 0; }
