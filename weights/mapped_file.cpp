#include <vitrine/weights/mapped_file.h>

#include <cerrno>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <vitrine/layers/error.h>

namespace vitrine::detail {

namespace {

std::string reason(int code) { return std::generic_category().message(code); }

// Closes on every path out of a constructor.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  // O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) throw Error(fmt::format("{}: cannot open: {}", path, reason(errno)));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) throw Error(fmt::format("{}: cannot read: {}", path, reason(errno)));
  if (S_ISDIR(status.st_mode)) throw Error(fmt::format("{}: is a folder, expected a file", path));
  if (!S_ISREG(status.st_mode)) throw Error(fmt::format("{}: is not a regular file, so it cannot be mapped", path));
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) return;
  void* mapping = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (mapping == MAP_FAILED) throw Error(fmt::format("{}: cannot map {} bytes: {}", path, size_, reason(errno)));
  data_ = static_cast<std::byte*>(mapping);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(data_, size_);
}

void MappedFile::release(std::size_t begin, std::size_t end) const {
  static const std::size_t page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t first = (begin + page - 1) / page * page;
  const std::size_t last = end / page * page;
  if (data_ && first < last) ::madvise(data_ + first, last - first, MADV_DONTNEED);
}

}  // namespace vitrine::detail
