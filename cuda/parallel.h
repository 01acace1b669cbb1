// A small thread pool for the ops.
//
// Not OpenMP, for three measured reasons: its barriers spin, which on a busy machine made two threads slower than one (44 ms
// against 16 ms median for the same picture at load 6 on 2 cores); it must be the very runtime that torch has loaded; and Apple's
// compiler lacks it. Here the caller works too and waits only for helpers that have taken a piece of work: a helper that
// the system has not scheduled yet costs nothing.
#pragma once

#include <cstdint>
#include <new>

namespace fourd {

// Call run(context, task, worker) once for each task in 0..tasks-1, from up to `threads` threads; worker < threads names the
// thread. Which worker gets which task is left to chance. Throws std::bad_alloc if any call did. When the pool is in use by another
// caller, all tasks run in the calling thread.
void parallel_run(int threads, int64_t tasks, void (*run)(void* context, int64_t task, int worker), void* context);

// The same for any callable f(task, worker).
template <typename F>
void parallel_for(int threads, int64_t tasks, F&& f) {
  parallel_run(
      threads, tasks, [](void* context, int64_t task, int worker) { (*static_cast<F*>(context))(task, worker); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

// Split 0..count-1 into pieces of at most `grain`: f(begin, end, worker).
template <typename F>
void parallel_ranges(int threads, int64_t count, int64_t grain, F&& f) {
  parallel_for(threads, (count + grain - 1) / grain, [&](int64_t piece, int worker) {
    const int64_t begin = piece * grain;
    f(begin, begin + grain < count ? begin + grain : count, worker);
  });
}

}  // namespace fourd
