#include <vitrine/layers/context.h>

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <omp.h>

#include <vitrine/layers/error.h>

namespace vitrine {

namespace {

constexpr int kMostThreads = 4096;  // more are a slip, and the OpenMP runtime ends the process where it cannot start them

thread_local Context* current_context = nullptr;

std::string read_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// Processors that a quota of `quota` in every `period` microseconds amounts to, rounded up; 0: no limit.
int processors(const std::string& quota, const std::string& period) {
  const double q = std::strtod(quota.c_str(), nullptr), p = std::strtod(period.c_str(), nullptr);
  return q > 0 && p > 0 ? std::max(1, static_cast<int>(std::min(std::ceil(q / p), 1e6))) : 0;
}

// The tightest quota of this process's control group and of those around it; 0: no limit. In a container the group is
// seen as the root of the hierarchy.
int cgroup_processors() {
  std::string unified = "/", cpu = "/";
  std::ifstream groups("/proc/self/cgroup");  // lines "0::/path" (version 2), "4:cpu,cpuacct:/path" (version 1)
  for (std::string line; std::getline(groups, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = fmt::format(",{},", std::string_view(line).substr(first + 1, second - first - 1));
    if (controllers == ",,") unified = line.substr(second + 1);
    if (controllers.find(",cpu,") != std::string::npos) cpu = line.substr(second + 1);
  }
  int least = 0;
  const auto consider = [&least](int n) {
    if (n > 0 && (least == 0 || n < least)) least = n;
  };
  const auto outward = [](std::string path, const auto& visit) {
    for (; path.size() > 1 && path[0] == '/'; path.erase(path.rfind('/'))) visit(path);
    visit(std::string());
  };
  outward(unified, [&](const std::string& path) {
    std::istringstream limit(read_line("/sys/fs/cgroup" + path + "/cpu.max"));
    std::string quota, period;
    if (limit >> quota >> period) consider(processors(quota, period));  // "max": not a number, no limit
  });
  outward(cpu, [&](const std::string& path) {
    const std::string group = "/sys/fs/cgroup/cpu" + path;
    consider(processors(read_line(group + "/cpu.cfs_quota_us"), read_line(group + "/cpu.cfs_period_us")));
  });
  return least;
}

// Cores behind the processors of the affinity mask: two hyper-threads of a core share its vector units, and a second
// one only costs.
int affinity_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return std::max(1L, sysconf(_SC_NPROCESSORS_ONLN));
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    const std::string siblings =
        read_line("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
    cores.insert(siblings.empty() ? std::to_string(cpu) : siblings);
  }
  return std::max<int>(1, static_cast<int>(cores.size()));
}

}  // namespace

int default_threads() {
  static const int threads = [] {
    int n = affinity_cores();
    if (const int quota = cgroup_processors(); quota > 0) n = std::min(n, quota);
    if (const char* text = std::getenv("OMP_NUM_THREADS"); text && std::atoi(text) > 0)
      n = std::min(std::atoi(text), kMostThreads);
    return n;
  }();
  return threads;
}

Context::Context(ContextOptions options)
    : threads_(options.threads == 0 ? default_threads() : options.threads), device_(options.device), dry_run_(options.dry_run) {
  if (threads_ < 1 || threads_ > kMostThreads)
    throw Error(fmt::format("a context of {} threads, expected 1 to {}, or 0 for the default", options.threads, kMostThreads));
}

Context& Context::current() {
  if (current_context) return *current_context;
  thread_local Context fallback;
  return fallback;
}

// oneDNN takes its thread count from the calling thread's OpenMP setting.
ContextScope::ContextScope(Context& context)
    : previous_(std::exchange(current_context, &context)), previous_omp_threads_(omp_get_max_threads()) {
  omp_set_num_threads(context.threads());
}

ContextScope::~ContextScope() {
  current_context = previous_;
  omp_set_num_threads(previous_omp_threads_);
}

}  // namespace vitrine
