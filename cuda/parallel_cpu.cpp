// The thread pool of parallel.h.
#include "parallel.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "common.h"

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace fourd {
namespace {

// How long a helper looks for the next piece of work before it sleeps: the phases of one op follow each other within this.
constexpr auto kPatience = std::chrono::microseconds(60);

struct Job {
  void (*run)(void*, int64_t, int) = nullptr;
  void* context = nullptr;
  int64_t tasks = 0;
  int threads = 0;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};

  void work(int worker) {
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
      try {
        run(context, task, worker);
      } catch (const std::bad_alloc&) {
        failed = true;
      }
    }
  }
};

class Pool {
 public:
  // One caller at a time has the pool.
  bool try_take() { return !taken_.exchange(true, std::memory_order_acquire); }
  void give_back() { taken_.store(false, std::memory_order_release); }

  void run(Job* job) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (int(helpers_) < job->threads - 1) {
        const int worker = ++helpers_;
        std::thread([this, worker] { help(worker); }).detach();
      }
      job_ = job;
      posted_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    job->work(0);
    std::unique_lock<std::mutex> lock(mutex_);
    job_ = nullptr;  // nobody can join any more
    left_.wait(lock, [this] { return inside_ == 0; });
  }

 private:
  void help(int worker) {
    uint64_t seen = 0;
    for (;;) {
      const auto start = std::chrono::steady_clock::now();
      while (posted_.load(std::memory_order_acquire) == seen && std::chrono::steady_clock::now() - start < kPatience)
        std::this_thread::yield();
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return posted_.load(std::memory_order_relaxed) != seen; });
      seen = posted_.load(std::memory_order_relaxed);
      Job* job = job_;
      if (job == nullptr || worker >= job->threads) continue;
      inside_++;
      lock.unlock();
      job->work(worker);
      lock.lock();
      if (--inside_ == 0) left_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, left_;
  Job* job_ = nullptr;
  std::atomic<uint64_t> posted_{0};
  int inside_ = 0;
  int helpers_ = 0;
  std::atomic<bool> taken_{false};
};

// Never destroyed: its threads may sleep in it until the process ends. After a fork the child has none of them, so it starts anew.
std::atomic<Pool*> g_pool{nullptr};

Pool* pool() {
  Pool* found = g_pool.load(std::memory_order_acquire);
  if (found) return found;
  Pool* made = new Pool;
  if (!g_pool.compare_exchange_strong(found, made)) {
    delete made;
    return found;
  }
#if !defined(_WIN32)
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { g_pool.store(nullptr); }); });
#endif
  return made;
}

}  // namespace

void parallel_run(int threads, int64_t tasks, void (*run)(void*, int64_t, int), void* context) {
  Job job;
  job.run = run;
  job.context = context;
  job.tasks = tasks;
  job.threads = int(threads < tasks ? threads : tasks);
  Pool* shared = job.threads > 1 ? pool() : nullptr;
  if (shared && shared->try_take()) {
    shared->run(&job);
    shared->give_back();
  } else {
    job.work(0);
  }
  if (job.failed) throw std::bad_alloc();
}

}  // namespace fourd
