#include <catch.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <vitrine/pipelines/prefetch.h>

using namespace vitrine;
using detail::Prefetch;

namespace {

// Items of uneven cost, so that threads overtake each other.
std::int64_t slow_square(std::int64_t i) {
  std::this_thread::sleep_for(std::chrono::microseconds(i % 7 * 100));
  if (i % 10 == 3) throw Error("item " + std::to_string(i));
  return i * i;
}

}  // namespace

TEST_CASE("items come in order, and those that fail throw in their place") {
  for (const int threads : {0, 1, 4}) {
    INFO(threads << " threads");
    Prefetch<std::int64_t> items(50, slow_square, threads, 5);
    for (std::int64_t i = 0; i < 50; ++i) {
      if (i % 10 == 3)
        CHECK_THROWS_AS(items.next(), Error);
      else
        CHECK(items.next() == i * i);
    }
  }
}

TEST_CASE("no more is made ahead than was asked for, and leaving early ends the threads") {
  std::atomic<std::int64_t> made{0};
  Prefetch<std::int64_t> items(
      1000,
      [&](std::int64_t i) {
        ++made;
        return i;
      },
      3, 4);
  for (std::int64_t i = 0; i < 10; ++i) CHECK(items.next() == i);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(made <= 14);
}

TEST_CASE("batches: whole ones, the rest, failures left out") {
  std::vector<std::vector<std::int64_t>> batches;
  std::vector<std::int64_t> failed;
  const auto run = [&](std::int64_t stop_after) {
    batches.clear();
    failed.clear();
    Prefetch<std::int64_t> items(24, slow_square, 2, 6);
    return detail::in_batches(
        items, 24, 5,
        [&](std::span<const std::int64_t> numbers, std::span<const std::int64_t> values) {
          batches.emplace_back(numbers.begin(), numbers.end());
          for (std::size_t i = 0; i < numbers.size(); ++i) CHECK(values[i] == numbers[i] * numbers[i]);
        },
        [&](std::int64_t number, const std::string& message) {
          CHECK(message == "item " + std::to_string(number));
          failed.push_back(number);
        },
        [&](std::int64_t done) { return done < stop_after; });
  };
  CHECK(run(1000));
  CHECK(batches == std::vector<std::vector<std::int64_t>>{
                       {0, 1, 2, 4, 5}, {6, 7, 8, 9, 10}, {11, 12, 14, 15, 16}, {17, 18, 19, 20, 21}, {22}});
  CHECK(failed == std::vector<std::int64_t>{3, 13, 23});
  CHECK_FALSE(run(10));
  CHECK(batches.size() == 2);
}

TEST_CASE("queued batches are finished in order, each after those queued behind it were begun") {
  using Events = std::vector<std::string>;
  Events events;
  const auto run = [&](std::size_t queued, std::int64_t stop_after) {
    events.clear();
    Prefetch<std::int64_t> items(9, slow_square, 2, 6);
    return detail::in_queued_batches(
        items, 9, 3, queued,
        [&](std::vector<std::int64_t> numbers, std::span<std::int64_t> values) {
          CHECK(numbers.size() == values.size());
          events.push_back("begin " + std::to_string(numbers.front()));
          return [&, numbers = std::move(numbers)] { events.push_back("finish " + std::to_string(numbers.front())); };
        },
        [&](std::int64_t number, const std::string&) { events.push_back("failed " + std::to_string(number)); },
        [&](std::int64_t done) {
          events.push_back("done " + std::to_string(done));
          return done < stop_after;
        });
  };
  CHECK(run(0, 100));
  CHECK(events ==
        Events{"begin 0", "finish 0", "done 3", "failed 3", "begin 4", "finish 4", "done 7", "begin 7", "finish 7", "done 9"});
  CHECK(run(1, 100));
  CHECK(events ==
        Events{"begin 0", "failed 3", "begin 4", "finish 0", "done 3", "begin 7", "finish 4", "done 7", "finish 7", "done 9"});
  CHECK(run(5, 100));
  CHECK(events ==
        Events{"begin 0", "failed 3", "begin 4", "begin 7", "finish 0", "done 3", "finish 4", "done 7", "finish 7", "done 9"});
  CHECK_FALSE(run(1, 3));
  CHECK(events == Events{"begin 0", "failed 3", "begin 4", "finish 0", "done 3"});
  CHECK_FALSE(run(1, 7));
  CHECK(run(1, 9));  // all was done when it was told to stop
}
