// One HTTP request. libcurl brings thirty libraries with it: it is in libvitrine_http.so (curl/http.cpp), loaded at the first
// request. No redirect is followed here: who asks decides where its token may go.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace vitrine::detail {

struct HttpRequest {
  std::string url;
  bool head = false;
  std::vector<std::string> headers;  // "Name: value"
  std::int64_t timeout_s = 10;       // to connect, and without a byte
  std::function<bool(long status, const std::map<std::string, std::string>& headers)> on_headers =
      {};                                                    // before the body; false stops
  std::function<bool(std::string_view bytes)> on_body = {};  // false stops
  std::function<bool()> on_wait = {};                        // asked now and then; false stops
};

struct HttpResponse {
  long status = 0;                             // 0: there was none
  std::map<std::string, std::string> headers;  // names in lower case
  std::string failure;                         // of the connection; empty where the response came whole
  bool stopped = false;                        // by one of the functions
};

// Throws Error where libvitrine_http.so cannot be loaded.
HttpResponse perform(const HttpRequest& request);

// What libvitrine_http.so gives: plain C, so that both may be built apart.
struct HttpCall {
  const char* url;
  const char* const* headers;
  std::int64_t header_count;
  std::int64_t timeout_s;
  int head;
  void* context;
  int (*on_header)(void* context, const char* line, std::int64_t size);
  int (*on_body)(void* context, const char* bytes, std::int64_t size);  // other than 0 stops, here and below
  int (*on_wait)(void* context);
};
using HttpVersionFunction = int();
using HttpPerformFunction = int(const HttpCall* call, char* message, std::int64_t message_size);  // 0: the response came whole
inline constexpr int kHttpVersion = 1;

}  // namespace vitrine::detail
