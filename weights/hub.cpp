// The cache: models--OWNER--NAME/ has blobs/ (files by their hash), refs/ (branches to commits), snapshots/COMMIT/ (names to
// blobs, as links). The hub's answer to HEAD says a file's commit, hash and size; files of Git LFS have SHA-256, small ones
// Git's SHA-1. A download goes to blobs/HASH.incomplete under a lock that Python honours, is continued where it was cut, and
// becomes blobs/HASH once size and hash are right.
#include <vitrine/weights/hub.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/layers/error.h>
#include <vitrine/layers/file.h>
#include <vitrine/layers/names.h>
#include <vitrine/weights/hash.h>
#include <vitrine/weights/http.h>
#include <vitrine/weights/mapped_file.h>
#include <vitrine/weights/weight_names.h>

namespace fs = std::filesystem;

namespace vitrine {

namespace {

using detail::HttpRequest;
using detail::HttpResponse;
using detail::printable;
using Headers = std::map<std::string, std::string>;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool is_true(std::string value) {
  std::transform(value.begin(), value.end(), value.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

bool is_hex(std::string_view text, std::size_t size) {
  return text.size() == size && text.find_first_not_of("0123456789abcdef") == text.npos;
}

// What may become the name of a file or folder of the cache.
bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= 200 && text.front() != '.' && text.find("..") == text.npos &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
         });
}

// Names with slashes between: a branch (refs/pr/1), a file in a folder (unet/config.json).
bool is_path(std::string_view text) {
  if (text.empty() || text.size() > 200) return false;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('/', begin), text.size());
    if (!is_name(text.substr(begin, end - begin))) return false;
    begin = end + 1;
  }
  return true;
}

// "https://host:port" of a URL; empty where it is none.
std::string origin_of(std::string_view url) {
  const auto scheme = url.find("://");
  if (scheme == url.npos) return {};
  std::string origin(url.substr(0, std::min(url.find_first_of("/?#", scheme + 3), url.size())));
  std::transform(origin.begin(), origin.end(), origin.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return origin;
}

std::string value_of(const Headers& headers, const std::string& name) {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string() : found->second;
}

std::optional<std::int64_t> number_of(const std::string& text) {
  if (text.empty() || text.size() > 18 || text.find_first_not_of("0123456789") != text.npos) return std::nullopt;
  return std::stoll(text);
}

// The hub's word about a file.
struct Remote {
  std::string commit, etag;
  std::optional<std::int64_t> size;
};

class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags) : path_(path), fd_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (fd_ < 0) fail();
  }
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return fd_; }
  [[noreturn]] void fail() const { throw Error(fmt::format("{}: {}", path_.string(), std::strerror(errno))); }

  void write(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail();
      bytes.remove_prefix(static_cast<std::size_t>(written));
    }
  }

 private:
  fs::path path_;
  int fd_;
};

class Repository {
 public:
  Repository(const HubSettings& settings, HubName name, const FetchProgress& progress)
      : settings_(settings),
        name_(std::move(name)),
        progress_(progress),
        folder_(fs::path(settings.cache) / fmt::format("models--{}--{}", name_.owner, name_.name)) {
    if (is_hex(name_.revision, 40)) commit_ = name_.revision;
    if (settings_.offline) no_hub_ = "HF_HUB_OFFLINE is set";
  }

  // A file's path in the cache; none where the repository does not have it.
  std::optional<std::string> fetch(const std::string& file) {
    if (!is_path(file))
      throw Error(fmt::format("{}: its file '{}' cannot be fetched: expected a name of the repository, without . and ..",
                              describe(), printable(file)));
    if (const auto cached = cached_file(commit_, file); !commit_.empty() && cached) return cached;
    if (std::error_code error; !commit_.empty() && fs::exists(absence(commit_, file), error)) return std::nullopt;
    if (!no_hub_.empty()) return from_cache(file);
    std::optional<Remote> remote;
    try {
      remote = look_up(file);
    } catch (const NoConnection& failure) {
      no_hub_ = failure.what();
      return from_cache(file);
    }
    if (!remote) {
      note_absence(file);
      return std::nullopt;
    }
    commit_ = remote->commit;
    const fs::path blob = folder_ / "blobs" / remote->etag;
    if (!is_whole(blob, *remote)) download(file, *remote, blob);
    link(file, *remote);
    return (snapshot(remote->commit) / file).string();
  }

  std::string folder() const { return snapshot(commit_).string(); }
  const std::string& no_hub() const { return no_hub_; }
  std::string describe() const {
    return fmt::format("hf:{}/{}{}", name_.owner, name_.name, name_.revision == "main" ? "" : "@" + name_.revision);
  }

 private:
  // The hub could not be reached: the cache may do.
  struct NoConnection : Error {
    using Error::Error;
  };

  // --- the cache

  fs::path snapshot(const std::string& commit) const { return folder_ / "snapshots" / commit; }

  std::string cached_commit() const {
    if (is_hex(name_.revision, 40)) return name_.revision;
    std::ifstream stream(folder_ / "refs" / name_.revision);
    std::string commit;
    stream >> commit;
    return is_hex(commit, 40) ? commit : "";
  }

  std::optional<std::string> cached_file(const std::string& commit, const std::string& file) const {
    std::error_code error;
    const fs::path path = snapshot(commit) / file;
    return !commit.empty() && fs::is_regular_file(path, error) ? std::optional(path.string()) : std::nullopt;
  }

  // That a commit does not have a file is kept, too, as Python does it.
  fs::path absence(const std::string& commit, const std::string& file) const { return folder_ / ".no_exist" / commit / file; }

  void note_absence(const std::string& file) const {
    if (commit_.empty()) return;
    make_folders(absence(commit_, file).parent_path());
    std::ofstream mark(absence(commit_, file));
  }

  // Without the hub: a file that the cache does not have is one that the repository may not have.
  std::optional<std::string> from_cache(const std::string& file) {
    if (commit_.empty()) commit_ = cached_commit();
    std::error_code error;
    if (commit_.empty() || !fs::is_directory(snapshot(commit_), error))
      throw Error(
          fmt::format("{}: is not in the cache {}, and the hub cannot be asked: {}", describe(), settings_.cache, no_hub_));
    return cached_file(commit_, file);
  }

  static bool is_whole(const fs::path& blob, const Remote& remote) {
    std::error_code error;
    const auto size = fs::file_size(blob, error);
    return !error && (!remote.size || size == static_cast<std::uintmax_t>(*remote.size));
  }

  static void make_folders(const fs::path& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) throw Error(fmt::format("{}: cannot be made: {}", folder.string(), error.message()));
  }

  void link(const std::string& file, const Remote& remote) const {
    const fs::path path = snapshot(remote.commit) / file;
    fs::path target = fs::path("../../blobs") / remote.etag;
    for (auto depth = std::count(file.begin(), file.end(), '/'); depth > 0; --depth) target = ".." / target;
    make_folders(path.parent_path());
    std::error_code error;
    if (fs::read_symlink(path, error) != target) {
      const fs::path fresh = path.string() + fmt::format(".{}.part", getpid());
      fs::remove(fresh, error);
      fs::create_symlink(target, fresh, error);
      if (!error) fs::rename(fresh, path, error);
      if (error) throw Error(fmt::format("{}: cannot be made: {}", path.string(), error.message()));
    }
    if (is_hex(name_.revision, 40) || cached_commit() == remote.commit) return;
    const fs::path ref = folder_ / "refs" / name_.revision;
    make_folders(ref.parent_path());
    detail::write_file(ref.string(), remote.commit);
  }

  // --- requests

  void check_stopped(std::string_view file, std::int64_t done, std::int64_t total) const {
    if (progress_ && !progress_(file, done, total))
      throw Error(fmt::format("{}: interrupted; what has come is kept, the next run goes on from there", describe()));
  }

  void wait(std::chrono::milliseconds time, std::string_view file) const {
    using namespace std::chrono_literals;
    for (const auto end = std::chrono::steady_clock::now() + time; std::chrono::steady_clock::now() < end;) {
      check_stopped(file, 0, 0);
      std::this_thread::sleep_for(std::min(time, 50ms));
    }
  }

  std::string url_of(const std::string& file) const {
    std::string revision;  // slashes of a branch's name are not folders
    for (const char c : commit_.empty() ? name_.revision : commit_) revision += c == '/' ? std::string("%2F") : std::string(1, c);
    return fmt::format("{}/{}/{}/resolve/{}/{}", settings_.endpoint, name_.owner, name_.name, revision, file);
  }

  // Follows redirects, the hub's own where `only_here`: then the answer that leads elsewhere is the answer. The token goes to
  // the endpoint's host alone.
  HttpResponse request(HttpRequest request, bool only_here) const {
    const std::string here = origin_of(settings_.endpoint);
    const std::vector<std::string> headers = request.headers;
    for (int hops = 0; hops < 8; ++hops) {
      const std::string origin = origin_of(request.url);
      request.headers = headers;
      request.timeout_s = settings_.timeout_s;
      if (!settings_.token.empty() && origin == here) request.headers.push_back("Authorization: Bearer " + settings_.token);
      HttpResponse response = detail::perform(request);
      const std::string location = value_of(response.headers, "location");
      if (response.status < 300 || response.status >= 400 || location.empty()) return response;
      std::string next = location;
      if (location.starts_with("/"))
        next = (location.starts_with("//") ? origin.substr(0, origin.find("//")) : origin) + location;
      const std::string next_origin = origin_of(next);
      if (only_here && next_origin != here) return response;
      if (!next_origin.starts_with("https://") && !(next_origin.starts_with("http://") && origin.starts_with("http://")))
        throw Error(fmt::format("{}: the hub leads to {}, which is not safe", describe(),
                                printable(next_origin.empty() ? location : next_origin)));
      request.url = next;
    }
    throw Error(fmt::format("{}: the hub leads around in a circle", describe()));
  }

  // Why a status is final, or none where another attempt may help.
  std::optional<std::string> final_reason(const HttpResponse& response) const {
    const std::string code = value_of(response.headers, "x-error-code");
    const std::string_view hint =
        settings_.token.empty() ? "set HF_TOKEN to a token that may read it" : "the token of HF_TOKEN may not read it";
    switch (response.status) {
      case 401:
        return fmt::format("there is no such repository, or it is private: {}", hint);
      case 403:
        return fmt::format("access is refused (accept the model's terms on its page?): {}", hint);
      case 404:
        if (code == "RevisionNotFound") return fmt::format("there is no revision '{}'", name_.revision);
        return "there is no such repository";
      case 408:
      case 425:
      case 429:
        return std::nullopt;
      default:
        if (response.status >= 500 || response.status == 0) return std::nullopt;
        return fmt::format("the hub answers with status {}", response.status);
    }
  }

  std::string trouble(const HttpResponse& response) const {
    if (!response.failure.empty()) return response.failure;
    return response.status == 429 ? std::string("the hub asks for fewer requests (status 429)")
                                  : fmt::format("the hub answers with status {}", response.status);
  }

  // Doubles with each attempt; the hub may name a time.
  std::chrono::milliseconds delay_after(int attempt, const HttpResponse& response) const {
    const auto asked = number_of(value_of(response.headers, "retry-after"));
    const auto own = settings_.delay * (1 << std::min(attempt, 6));
    return asked ? std::max<std::chrono::milliseconds>(own, std::chrono::seconds(std::min<std::int64_t>(*asked, 60))) : own;
  }

  // --- one file

  std::optional<Remote> look_up(const std::string& file) const {
    HttpRequest head{
        .url = url_of(file), .head = true, .headers = {}, .on_wait = [&] { return !progress_ || progress_(file, 0, 0); }};
    for (int attempt = 0;; ++attempt) {
      check_stopped(file, 0, 0);
      const HttpResponse response = request(head, true);
      if (response.failure.empty() && response.status == 404 && value_of(response.headers, "x-error-code") == "EntryNotFound")
        return std::nullopt;
      if (response.failure.empty() && response.status >= 200 && response.status < 400) return read_remote(file, response);
      check_stopped(file, 0, 0);
      if (response.failure.empty())
        if (const auto reason = final_reason(response)) throw Error(fmt::format("{}: {}", describe(), *reason));
      if (attempt + 1 >= settings_.attempts) {
        const std::string message = fmt::format("{}: {}: {} after {} attempts", describe(), file, trouble(response), attempt + 1);
        if (response.status == 0 || !response.failure.empty()) throw NoConnection(message);
        throw Error(message);
      }
      wait(delay_after(attempt, response), file);
    }
  }

  Remote read_remote(const std::string& file, const HttpResponse& response) const {
    Remote remote;
    remote.commit = value_of(response.headers, "x-repo-commit");
    remote.etag = value_of(response.headers, "x-linked-etag");
    const bool linked = !remote.etag.empty();
    if (!linked) remote.etag = value_of(response.headers, "etag");
    if (remote.etag.starts_with("W/")) remote.etag.erase(0, 2);
    std::erase(remote.etag, '"');
    remote.size = number_of(value_of(response.headers, linked ? "x-linked-size" : "content-length"));
    if (!is_hex(remote.commit, 40) || !(is_hex(remote.etag, 40) || is_hex(remote.etag, 64)))
      throw Error(
          fmt::format("{}: {}: {} does not answer as a hub does (no commit or hash)", describe(), file, settings_.endpoint));
    if (!commit_.empty() && remote.commit != commit_)
      throw Error(fmt::format("{}: {}: the hub answers with another commit", describe(), file));
    return remote;
  }

  void download(const std::string& file, const Remote& remote, const fs::path& blob) const {
    const fs::path locks = fs::path(settings_.cache) / ".locks" / folder_.filename();
    make_folders(blob.parent_path());
    make_folders(locks);
    const Descriptor lock(locks / (remote.etag + ".lock"), O_RDWR | O_CREAT);
    while (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) lock.fail();
      wait(std::chrono::milliseconds(200), file);
    }
    if (is_whole(blob, remote)) return;  // another process was faster
    const fs::path part = blob.string() + ".incomplete";
    // What an earlier run left may be anything: where its hash is wrong, the file is fetched once more from its beginning.
    for (int round = 0;; ++round) {
      if (receive(file, remote, part) && has_right_hash(part, remote, file)) break;
      std::error_code error;
      fs::remove(part, error);
      if (round == 1)
        throw Error(fmt::format("{}: {}: what came is not what the hub announced (its hash is another)", describe(), file));
    }
    std::error_code error;
    fs::rename(part, blob, error);
    if (error) throw Error(fmt::format("{}: cannot be made: {}", blob.string(), error.message()));
    const Descriptor blobs(blob.parent_path(), O_RDONLY | O_DIRECTORY);
    ::fsync(blobs.get());
  }

  // Until `part` has all bytes, from where it ends; false where it has too many.
  bool receive(const std::string& file, const Remote& remote, const fs::path& part) const {
    const Descriptor out(part, O_WRONLY | O_CREAT);
    std::int64_t farthest = 0;  // a server that begins anew each time must not be asked for ever
    for (int attempt = 0;;) {
      const off_t end = ::lseek(out.get(), 0, SEEK_END);
      if (end < 0) out.fail();
      if (remote.size && end > *remote.size) return false;
      if (remote.size && end == *remote.size) break;
      std::int64_t done = end;
      const HttpResponse response = receive_rest(file, remote, out, done);
      const bool complete = response.failure.empty() && response.status >= 200 && response.status < 300;
      if (complete && !remote.size) break;
      if (complete && done == *remote.size) break;
      if (remote.size && done > *remote.size) return false;
      if (response.failure.empty() && !complete && response.status != 416)
        if (const auto reason = final_reason(response)) throw Error(fmt::format("{}: {}: {}", describe(), file, *reason));
      check_stopped(file, done, remote.size.value_or(0));
      if (response.status == 416 && ::ftruncate(out.get(), 0) != 0) out.fail();
      attempt = done > std::max<std::int64_t>(end, farthest) ? 0 : attempt + 1;
      farthest = std::max(done, farthest);
      if (attempt >= settings_.attempts)
        throw Error(fmt::format(
            "{}: {}: {} after {} attempts; the {} of {} bytes that came are kept, the next run goes on from there", describe(),
            file, complete ? "the connection ends early" : trouble(response), attempt, done, remote.size.value_or(0)));
      wait(delay_after(attempt, response), file);
    }
    if (::fsync(out.get()) != 0) out.fail();
    return true;
  }

  HttpResponse receive_rest(const std::string& file, const Remote& remote, const Descriptor& out, std::int64_t& done) const {
    const std::int64_t begin = done;
    bool wanted = false;  // the body belongs into the file
    HttpRequest get{.url = url_of(file), .head = false, .headers = {}};
    if (begin > 0) get.headers.push_back(fmt::format("Range: bytes={}-", begin));
    get.on_headers = [&](long status, const Headers& headers) {
      wanted =
          status == 200 || (status == 206 && value_of(headers, "content-range").starts_with(fmt::format("bytes {}-", begin)));
      if (status == 206 && !wanted) return false;
      if (status == 200 && begin > 0) {  // all of it comes, whatever was asked for
        if (::ftruncate(out.get(), 0) != 0 || ::lseek(out.get(), 0, SEEK_SET) != 0) out.fail();
        done = 0;
      }
      return true;
    };
    get.on_body = [&](std::string_view bytes) {
      if (!wanted) return true;  // the page that comes with a redirect or an error
      const auto room = remote.size ? *remote.size - done : static_cast<std::int64_t>(bytes.size());
      if (static_cast<std::int64_t>(bytes.size()) > room) {
        done = *remote.size + 1;
        return false;
      }
      out.write(bytes);
      done += static_cast<std::int64_t>(bytes.size());
      return true;
    };
    get.on_wait = [&] { return !progress_ || progress_(file, done, remote.size.value_or(0)); };
    return request(std::move(get), false);
  }

  bool has_right_hash(const fs::path& part, const Remote& remote, const std::string& file) const {
    const detail::MappedFile mapped(part.string());
    std::span<const std::byte> bytes = mapped.bytes();
    detail::Hash hash(remote.etag.size() == 64 ? detail::HashKind::sha256 : detail::HashKind::sha1);
    if (remote.etag.size() == 40) {  // Git hashes a file with its kind and size before it
      const std::string begin = fmt::format("blob {}", bytes.size()) + '\0';
      hash.update(std::as_bytes(std::span(begin)));
    }
    constexpr std::size_t kStep = 1 << 24;
    for (; !bytes.empty(); bytes = bytes.subspan(std::min(kStep, bytes.size()))) {
      hash.update(bytes.first(std::min(kStep, bytes.size())));
      check_stopped(file, remote.size.value_or(0), remote.size.value_or(0));
    }
    return hash.hex() == remote.etag;
  }

  const HubSettings& settings_;
  HubName name_;
  const FetchProgress& progress_;
  fs::path folder_;
  std::string commit_;  // of all files, once it is known
  std::string no_hub_;  // why the hub cannot be asked; empty: it can
};

// The shards that an index names: files beside it.
std::set<std::string> shards_of(const std::string& index, const std::string& where) {
  std::ifstream stream(index);
  const auto json = nlohmann::json::parse(stream, nullptr, false);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object())
    throw Error(fmt::format("{}: its index of shards cannot be read", where));
  std::set<std::string> shards;
  for (const auto& [name, file] : map->items())
    if (file.is_string()) shards.insert(file.get<std::string>());
  return shards;
}

// The two names that a part's weights go under, best first.
using UsualNames = std::array<const char*, 2>;
constexpr UsualNames kOfDiffusers{"diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"},
    kOfTransformers{"model.safetensors", "pytorch_model.bin"};

// The first of them that the repository has in a folder ("unet/", or none), whole or as the shards of its index. False: neither.
bool fetch_weights(Repository& repository, const std::string& folder, const UsualNames& usual, const std::string& variant) {
  for (const char* const one : usual) {
    const std::vector<std::string> names = detail::weight_names(one, variant);
    if (repository.fetch(folder + names.back())) return true;
    for (std::size_t i = 0; i + 1 < names.size(); ++i) {
      const auto index = repository.fetch(folder + names[i]);
      if (!index) continue;
      for (const std::string& shard : shards_of(*index, repository.describe())) {
        if (!is_name(shard))
          throw Error(fmt::format("{}: its index names the shard '{}', expected a file beside it", repository.describe(),
                                  printable(shard)));
        if (!repository.fetch(folder + shard))
          throw Error(fmt::format("{}: its shard '{}' is missing", repository.describe(), folder + shard));
      }
      return true;
    }
  }
  return false;
}

void need_weights(Repository& repository, const std::string& folder, const UsualNames& usual) {
  if (!fetch_weights(repository, folder, usual, ""))
    throw Error(fmt::format("{}: has neither {} nor {}{}", repository.describe(), folder + usual[0], usual[1],
                            repository.no_hub().empty() ? "" : fmt::format(" in the cache ({})", repository.no_hub())));
}

}  // namespace

bool is_hub_name(std::string_view text) { return text.starts_with("hf:"); }

HubName parse_hub_name(std::string_view text) {
  std::string_view rest = text.substr(is_hub_name(text) ? 3 : 0);
  HubName name;
  if (const auto at = rest.find('@'); at != rest.npos) {
    name.revision = rest.substr(at + 1);
    rest = rest.substr(0, at);
  }
  const auto slash = rest.find('/');
  if (slash != rest.npos) {
    name.owner = rest.substr(0, slash);
    name.name = rest.substr(slash + 1);
  }
  if (!is_hub_name(text) || !is_name(name.owner) || !is_name(name.name) || !is_path(name.revision))
    throw Error(fmt::format("'{}': expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION", printable(text)));
  return name;
}

HubSettings hub_settings() {
  HubSettings settings;
  std::string home = environment("HF_HOME");
  if (home.empty()) {
    std::string cache = environment("XDG_CACHE_HOME");
    if (cache.empty()) cache = environment("HOME") + "/.cache";
    home = cache + "/huggingface";
  }
  settings.cache = environment("HF_HUB_CACHE");
  if (settings.cache.empty()) settings.cache = home + "/hub";
  if (const std::string endpoint = environment("HF_ENDPOINT"); !endpoint.empty()) settings.endpoint = endpoint;
  while (settings.endpoint.ends_with('/')) settings.endpoint.pop_back();
  settings.token = environment("HF_TOKEN");
  if (settings.token.empty() && !is_true(environment("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) {
    const std::string path = environment("HF_TOKEN_PATH");
    std::ifstream stream(path.empty() ? home + "/token" : path);
    stream >> settings.token;
  }
  // A token with other characters could smuggle a header.
  if (!std::all_of(settings.token.begin(), settings.token.end(), [](char c) { return c > ' ' && c < '\x7f'; }))
    throw Error("HF_TOKEN: the token has characters that no token has");
  settings.offline = is_true(environment("HF_HUB_OFFLINE")) || is_true(environment("TRANSFORMERS_OFFLINE"));
  if (const auto timeout = number_of(environment("HF_HUB_DOWNLOAD_TIMEOUT")); timeout && *timeout > 0)
    settings.timeout_s = std::min<std::int64_t>(*timeout, 3600);
  return settings;
}

std::optional<std::string> fetch_hub_file(const HubSettings& settings, const HubName& name, const std::string& file,
                                          const FetchProgress& progress) {
  return Repository(settings, name, progress).fetch(file);
}

std::string fetch_hub_model(const HubSettings& settings, const HubName& name, const FetchProgress& progress) {
  Repository repository(settings, name, progress);
  if (!repository.fetch("config.json"))
    throw Error(fmt::format("{}: has no config.json{}", repository.describe(),
                            repository.no_hub().empty() ? ": not a model of timm or transformers" : " in the cache"));
  repository.fetch("preprocessor_config.json");
  need_weights(repository, "", kOfTransformers);
  return repository.folder();
}

std::string fetch_hub_pipeline(const HubSettings& settings, const HubName& name, const FetchProgress& progress,
                               const std::string& variant) {
  Repository repository(settings, name, progress);
  const auto need = [&](const std::string& file, std::string_view otherwise) {
    if (const auto path = repository.fetch(file)) return *path;
    throw Error(fmt::format("{}: has no {}{}", repository.describe(), file,
                            repository.no_hub().empty() ? otherwise : " in the cache, and the hub is not asked"));
  };
  std::ifstream stream(need("model_index.json", ": not a pipeline of diffusers"));
  const auto parts = nlohmann::json::parse(stream, nullptr, false);
  if (!parts.is_object()) throw Error(fmt::format("{}: its model_index.json cannot be read", repository.describe()));
  std::vector<std::pair<std::string, UsualNames>> plain;  // what is left for the plain weights
  std::size_t weighty = 0;
  for (const auto& [part, origin] : parts.items()) {  // "unet": ["diffusers", "UNet2DConditionModel"]; [null, null]: left out
    if (!is_name(part) || !origin.is_array() || origin.size() != 2 || !origin[0].is_string()) continue;
    const std::string folder = part + "/";
    if (part == "scheduler") {
      need(folder + "scheduler_config.json", "");
    } else if (part.starts_with("tokenizer")) {
      for (const char* file :
           {"tokenizer_config.json", "special_tokens_map.json", "tokenizer.json", "vocab.json", "merges.txt", "spiece.model"})
        repository.fetch(folder + file);
    } else if (part == "vae" || part == "unet" || part == "transformer" || part.starts_with("text_encoder")) {
      need(folder + "config.json", "");
      const UsualNames& usual = origin[0] == "diffusers" ? kOfDiffusers : kOfTransformers;
      ++weighty;
      if (variant.empty() || !fetch_weights(repository, folder, usual, variant)) plain.emplace_back(folder, usual);
    }
  }
  if (!variant.empty() && plain.size() == weighty) throw Error(detail::no_variant(repository.describe(), variant));
  for (const auto& [folder, usual] : plain) need_weights(repository, folder, usual);
  return repository.folder();
}

}  // namespace vitrine
