// Work done ahead: items are made by threads of their own while the caller uses those before.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <vitrine/layers/devices.h>
#include <vitrine/layers/error.h>

namespace vitrine::detail {

// make(0), make(1), ..., make(count - 1) in order from next(), made by `threads` threads at most `ahead` items early.
// With no threads, next() makes the item itself. What make throws, next() throws for that item; the rest go on.
template <typename T>
class Prefetch {
 public:
  Prefetch(std::int64_t count, std::function<T(std::int64_t)> make, int threads, std::int64_t ahead)
      : count_(count), ahead_(ahead), make_(std::move(make)), slots_(static_cast<std::size_t>(threads > 0 ? ahead : 0)) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }

  ~Prefetch() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    room_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;

  T next() {
    if (threads_.empty()) return make_(taken_++);
    Slot slot;
    {
      std::unique_lock lock(mutex_);
      Slot& place = slot_of(taken_);
      made_.wait(lock, [&] { return place.value || place.error; });
      slot = std::exchange(place, {});
      ++taken_;
    }
    room_.notify_one();
    if (slot.error) std::rethrow_exception(slot.error);
    return std::move(*slot.value);
  }

 private:
  struct Slot {
    std::optional<T> value;
    std::exception_ptr error;
  };

  Slot& slot_of(std::int64_t item) { return slots_[static_cast<std::size_t>(item % ahead_)]; }

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      room_.wait(lock, [&] { return stop_ || started_ >= count_ || started_ < taken_ + ahead_; });
      if (stop_ || started_ >= count_) return;
      const std::int64_t item = started_++;
      lock.unlock();
      Slot slot;
      try {
        slot.value = make_(item);
      } catch (...) {
        slot.error = std::current_exception();
      }
      lock.lock();
      slot_of(item) = std::move(slot);
      made_.notify_all();
    }
  }

  const std::int64_t count_, ahead_;
  const std::function<T(std::int64_t)> make_;
  std::mutex mutex_;
  std::condition_variable made_, room_;
  std::vector<Slot> slots_;  // item i in slot i % ahead
  std::int64_t started_ = 0, taken_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

// How many batches are queued before the results of the first are asked for: a GPU works on one while the host makes the next, a
// CPU would only be late with its answers.
inline std::size_t batches_ahead(Device device) { return is_accelerator(device) ? 1 : 0; }

// As in_batches below, for a device that computes beside the host: begin(numbers, values) queues a batch and gives what is to be
// done with its results, which is called after `queued` further batches have been begun.
template <typename T, typename Begin, typename Failed, typename GoOn>
bool in_queued_batches(Prefetch<T>& items, std::int64_t count, std::int64_t size, std::size_t queued, const Begin& begin,
                       const Failed& failed, const GoOn& go_on) {
  std::vector<std::int64_t> numbers;
  std::vector<T> values;
  std::deque<std::pair<std::int64_t, std::function<void()>>> begun;  // items done with it, what is left to do
  const auto finish_but = [&](std::size_t left) {
    while (begun.size() > left) {
      const auto [done, finish] = std::move(begun.front());
      begun.pop_front();
      finish();
      if (!go_on(done) && done < count) return false;
    }
    return true;
  };
  for (std::int64_t i = 0; i < count; ++i) {
    try {
      values.push_back(items.next());
      numbers.push_back(i);
    } catch (const Error& error) {
      failed(i, std::string(error.what()));
    }
    const bool last = i + 1 == count;
    if (!values.empty() && (last || static_cast<std::int64_t>(values.size()) == size)) {
      begun.emplace_back(i + 1, begin(std::exchange(numbers, {}), std::span<T>(values)));
      values.clear();
      if (!finish_but(queued)) return false;
    }
  }
  return finish_but(0);
}

// Items 0 .. count - 1 of `items` in batches of at most `size`: batch(numbers, values) for those that could be made,
// failed(number, message) for those whose making threw Error. After each batch go_on(items done) may end the run; gives
// whether all was done.
template <typename T, typename Batch, typename Failed, typename GoOn>
bool in_batches(Prefetch<T>& items, std::int64_t count, std::int64_t size, const Batch& batch, const Failed& failed,
                const GoOn& go_on) {
  const auto begin = [&](const std::vector<std::int64_t>& numbers, std::span<T> values) {
    batch(std::span<const std::int64_t>(numbers), values);
    return [] {};
  };
  return in_queued_batches(items, count, size, 0, begin, failed, go_on);
}

}  // namespace vitrine::detail
