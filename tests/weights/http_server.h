// A small HTTP server on this machine that answers as a test says, and the hub's behaviour on top of it.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include <vitrine/weights/hash.h>

struct WebRequest {
  std::string method, path;
  std::map<std::string, std::string> headers;  // names in lower case

  std::string header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? "" : found->second;
  }
};

struct WebReply {
  int status = 200;
  std::map<std::string, std::string> headers = {};
  std::string body = {};
  std::size_t cut = std::string::npos;  // the connection ends after so many bytes of the body
  int pause_ms = 0;                     // before each piece of the body
  std::size_t piece = 1 << 16;
};

class WebServer {
 public:
  using Handler = std::function<WebReply(const WebRequest&)>;

  explicit WebServer(Handler handler) : handler_(std::move(handler)), socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(socket_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(socket_, 64) != 0 ||
        ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      std::abort();
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }

  ~WebServer() {
    closing_ = true;
    ::shutdown(socket_, SHUT_RDWR);
    acceptor_.join();
    for (std::thread& thread : threads_) thread.join();
    ::close(socket_);
  }
  WebServer(const WebServer&) = delete;
  WebServer& operator=(const WebServer&) = delete;

  std::string url() const { return fmt::format("http://127.0.0.1:{}", port_); }

  std::vector<WebRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  std::uint64_t sent() const { return sent_; }  // bytes of bodies, so far
  std::size_t count(std::string_view method) const {
    const auto all = requests();
    return static_cast<std::size_t>(
        std::count_if(all.begin(), all.end(), [&](const WebRequest& r) { return r.method == method; }));
  }

 private:
  void accept_all() {
    while (!closing_) {
      const int client = ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client >= 0) threads_.emplace_back([this, client] { serve(client); });
    }
  }

  void serve(int client) {
    std::string text;
    char buffer[4096];
    while (text.find("\r\n\r\n") == text.npos) {
      const ssize_t n = ::recv(client, buffer, sizeof buffer, 0);
      if (n <= 0) break;
      text.append(buffer, static_cast<std::size_t>(n));
    }
    const WebRequest request = parse(text);
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    if (!request.method.empty()) reply(client, request, handler_(request));
    ::shutdown(client, SHUT_RDWR);
    ::close(client);
  }

  static WebRequest parse(const std::string& text) {
    WebRequest request;
    const auto space = text.find(' ');
    if (space == text.npos) return request;
    request.method = text.substr(0, space);
    request.path = text.substr(space + 1, text.find(' ', space + 1) - space - 1);
    for (auto at = text.find("\r\n"); at != text.npos; at = text.find("\r\n", at + 2)) {
      const auto colon = text.find(": ", at), end = text.find("\r\n", at + 2);
      if (colon == text.npos || end == text.npos || colon > end) continue;
      std::string name = text.substr(at + 2, colon - at - 2);
      for (char& c : name) c = static_cast<char>(std::tolower(c));
      request.headers[name] = text.substr(colon + 2, end - colon - 2);
    }
    return request;
  }

  void reply(int client, const WebRequest& request, const WebReply& reply) {
    std::string head = fmt::format("HTTP/1.1 {} Status\r\nConnection: close\r\n", reply.status);
    if (!reply.headers.contains("Content-Length")) head += fmt::format("Content-Length: {}\r\n", reply.body.size());
    for (const auto& [name, value] : reply.headers) head += fmt::format("{}: {}\r\n", name, value);
    if (!send_all(client, head + "\r\n") || request.method == "HEAD") return;
    const std::size_t size = std::min(reply.cut, reply.body.size());
    for (std::size_t at = 0; at < size && !closing_; at += reply.piece) {
      if (reply.pause_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(reply.pause_ms));
      const std::string_view piece = std::string_view(reply.body).substr(at, std::min(reply.piece, size - at));
      if (!send_all(client, piece)) return;
      sent_ += piece.size();
    }
  }

  static bool send_all(int client, std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(client, text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }

  Handler handler_;
  int socket_;
  std::uint16_t port_ = 0;
  std::atomic<bool> closing_{false};
  std::atomic<std::uint64_t> sent_{0};
  std::thread acceptor_;
  std::vector<std::thread> threads_;
  mutable std::mutex mutex_;
  std::vector<WebRequest> requests_;
};

// The hub and its content network, two servers as in life: small files come from the hub itself, those whose name ends in
// .safetensors or .bin from the other, by a redirect. `misbehave` may change or replace any answer.
class FakeHub {
 public:
  std::map<std::string, std::string> files;  // of the repository, by their paths
  std::string commit = std::string(40, 'c');
  std::function<void(const WebRequest&, WebReply&)> misbehave;

  std::string url() const { return hub_.url(); }
  const WebServer& hub() const { return hub_; }
  const WebServer& network() const { return network_; }

  static bool is_large(const std::string& file) { return file.ends_with(".safetensors") || file.ends_with(".bin"); }

  static std::string hash_of(const std::string& file, const std::string& content) {
    using vitrine::detail::Hash;
    using vitrine::detail::HashKind;
    Hash hash(is_large(file) ? HashKind::sha256 : HashKind::sha1);
    const std::string text = is_large(file) ? content : fmt::format("blob {}", content.size()) + '\0' + content;
    hash.update(std::as_bytes(std::span(text)));
    return hash.hex();
  }

 private:
  WebReply answer(const WebRequest& request) {
    WebReply reply = ordinary(request);
    if (misbehave) misbehave(request, reply);
    return reply;
  }

  // "/owner/name/resolve/REVISION/FILE", "/network/FILE"
  static std::string file_of(const std::string& path) {
    std::size_t begin = 0;
    for (int folders = path.starts_with("/network/") ? 2 : 5; folders > 0; --folders) begin = path.find('/', begin) + 1;
    return path.substr(begin);
  }

  WebReply ordinary(const WebRequest& request) {
    const std::string file = file_of(request.path);
    const auto found = files.find(file);
    std::map<std::string, std::string> headers{{"X-Repo-Commit", commit}};
    if (request.path.find("/owner/name/") != 0 && request.path.find("/network/") != 0) return {.status = 401};
    if (found == files.end()) {
      headers["X-Error-Code"] = "EntryNotFound";
      return {.status = 404, .headers = headers, .body = "Entry not found"};
    }
    if (request.path.starts_with("/owner/") && is_large(file)) {
      headers["X-Linked-Etag"] = '"' + hash_of(file, found->second) + '"';
      headers["X-Linked-Size"] = std::to_string(found->second.size());
      headers["Location"] = network_.url() + "/network/" + file;
      return {.status = 302, .headers = headers, .body = "Found. Redirecting"};
    }
    headers["ETag"] = "W/\"" + hash_of(file, found->second) + '"';
    const std::string range = request.header("range");
    if (range.empty()) return {.status = 200, .headers = headers, .body = found->second};
    const std::size_t begin = std::strtoull(range.c_str() + 6, nullptr, 10);
    if (begin >= found->second.size()) return {.status = 416, .headers = headers};
    headers["Content-Range"] = fmt::format("bytes {}-{}/{}", begin, found->second.size() - 1, found->second.size());
    return {.status = 206, .headers = headers, .body = found->second.substr(begin)};
  }

  WebServer hub_{[this](const WebRequest& request) { return answer(request); }};
  WebServer network_{[this](const WebRequest& request) { return answer(request); }};
};
