#include <vitrine/layers/context.h>

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include <omp.h>

namespace vitrine {

namespace {

thread_local Context* current_context = nullptr;

std::string read_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// Processors that the cgroup's quota amounts to, rounded up; 0: no limit.
int cgroup_processors() {
  std::istringstream v2(read_line("/sys/fs/cgroup/cpu.max"));
  std::string quota;
  double period = 0;
  if (v2 >> quota >> period && quota != "max" && period > 0)
    return std::max(1, static_cast<int>((std::stod(quota) + period - 1) / period));
  const std::string q = read_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p = read_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (!q.empty() && !p.empty() && q[0] != '-' && std::stod(p) > 0)
    return std::max(1, static_cast<int>((std::stod(q) + std::stod(p) - 1) / std::stod(p)));
  return 0;
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
    if (const char* text = std::getenv("OMP_NUM_THREADS"); text && std::atoi(text) > 0) n = std::atoi(text);
    return n;
  }();
  return threads;
}

Context::Context(ContextOptions options)
    : threads_(options.threads > 0 ? options.threads : default_threads()), device_(options.device) {}

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
