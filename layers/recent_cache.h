// Values that layers make once a shape: packed primitives, index lists, biases and position tables.
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <utility>

#include <vitrine/layers/recording.h>

namespace vitrine::detail {

// The last few values made, by key. A layer sees few shapes; one that sees many must not grow without bound. Thread-safe;
// copies share what they hold. A pass that is recorded (repeated_pass.h) holds what it finds here, as it reads it again later;
// what it has to make itself belongs to the recording and is not kept.
template <typename Key, typename Value, std::size_t kMost = 16>
class RecentCache {
 public:
  template <typename Make>
  std::shared_ptr<const Value> get(const Key& key, const Make& make) const {
    State& state = *state_;
    Recording* const recording = Recording::current();
    {
      const std::lock_guard lock(state.mutex);
      for (auto i = state.entries.begin(); i != state.entries.end(); ++i) {
        if (i->first == key) {
          state.entries.splice(state.entries.begin(), state.entries, i);
          if (recording) recording->hold(i->second);
          return state.entries.front().second;
        }
      }
    }
    // Made outside the lock: two threads may make the same value, which is harmless.
    auto value = std::make_shared<const Value>(make());
    if (recording) return value;
    const std::lock_guard lock(state.mutex);
    state.entries.emplace_front(key, value);
    if (state.entries.size() > kMost) state.entries.pop_back();
    return value;
  }

 private:
  struct State {
    std::mutex mutex;
    std::list<std::pair<Key, std::shared_ptr<const Value>>> entries;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace vitrine::detail
