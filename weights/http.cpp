#include <vitrine/weights/http.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

#include <dlfcn.h>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/library.h>
#include <vitrine/layers/names.h>

namespace vitrine::detail {

namespace {

struct HttpLibrary {
  HttpPerformFunction* perform = nullptr;
  std::string reason;
};

HttpLibrary load() {
  const LoadedLibrary library = load_beside("libvitrine_http.so");
  if (library.handle == nullptr) return {nullptr, library.reason};
  const auto version = reinterpret_cast<HttpVersionFunction*>(dlsym(library.handle, "vitrine_http_version"));
  const auto perform = reinterpret_cast<HttpPerformFunction*>(dlsym(library.handle, "vitrine_http_perform"));
  if (version == nullptr || perform == nullptr || version() != kHttpVersion)
    return {nullptr, "libvitrine_http.so is of another version of Vitrine"};
  return {perform, {}};
}

// A response as its pieces arrive.
struct Exchange {
  const HttpRequest& request;
  HttpResponse response;

  bool header(std::string_view line) {
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
    if (line.starts_with("HTTP/")) {  // of the last response: proxies and 100 Continue come before
      const auto space = line.find(' ');
      response.status = space == line.npos ? 0 : std::strtol(std::string(line.substr(space)).c_str(), nullptr, 10);
      response.headers.clear();
      return true;
    }
    if (line.empty()) {
      const bool interim = response.status >= 100 && response.status < 200;
      response.stopped = !interim && request.on_headers && !request.on_headers(response.status, response.headers);
      return !response.stopped;
    }
    const auto colon = line.find(':');
    if (colon == line.npos || response.headers.size() > 1000) return true;
    std::string name(line.substr(0, colon));
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    std::string_view value = line.substr(colon + 1);
    while (value.starts_with(' ') || value.starts_with('\t')) value.remove_prefix(1);
    response.headers.insert_or_assign(std::move(name), std::string(value));
    return true;
  }

  bool stop_unless(bool go_on) {
    response.stopped = response.stopped || !go_on;
    return go_on;
  }
};

// Exceptions do not pass through libcurl: they stop the transfer and are thrown again behind it.
template <typename Function>
int guarded(void* context, Function function) {
  auto& [exchange, exception] = *static_cast<std::pair<Exchange, std::exception_ptr>*>(context);
  try {
    return function(exchange) ? 0 : 1;
  } catch (...) {
    exception = std::current_exception();
    return 1;
  }
}

}  // namespace

HttpResponse perform(const HttpRequest& request) {
  static const HttpLibrary library = load();
  if (library.perform == nullptr)
    throw Error(fmt::format("{}: downloads need libcurl, which did not load ({})", printable(request.url), library.reason));
  std::vector<const char*> headers;
  for (const std::string& header : request.headers) headers.push_back(header.c_str());
  std::pair<Exchange, std::exception_ptr> state{Exchange{request, {}}, nullptr};
  const HttpCall call{
      .url = request.url.c_str(),
      .headers = headers.data(),
      .header_count = static_cast<std::int64_t>(headers.size()),
      .timeout_s = request.timeout_s,
      .head = request.head ? 1 : 0,
      .context = &state,
      .on_header =
          [](void* context, const char* line, std::int64_t size) {
            return guarded(context, [&](Exchange& e) { return e.header({line, static_cast<std::size_t>(size)}); });
          },
      .on_body =
          [](void* context, const char* bytes, std::int64_t size) {
            return guarded(context, [&](Exchange& e) {
              return e.stop_unless(!e.request.on_body || e.request.on_body({bytes, static_cast<std::size_t>(size)}));
            });
          },
      .on_wait =
          [](void* context) {
            return guarded(context, [](Exchange& e) { return e.stop_unless(!e.request.on_wait || e.request.on_wait()); });
          },
  };
  std::array<char, 256> message{};
  const int failed = library.perform(&call, message.data(), static_cast<std::int64_t>(message.size()));
  if (state.second) std::rethrow_exception(state.second);
  HttpResponse response = std::move(state.first.response);
  if (failed != 0) response.failure = printable(message.data());
  return response;
}

}  // namespace vitrine::detail
