// libvitrine_http.so: weights/http.h by libcurl.
#include <algorithm>
#include <cstddef>
#include <cstring>

#include <curl/curl.h>

#include <vitrine/layers/export.h>
#include <vitrine/weights/http.h>

using vitrine::detail::HttpCall;

namespace {

std::size_t on_header(char* line, std::size_t, std::size_t size, void* call) {
  const auto& c = *static_cast<const HttpCall*>(call);
  return c.on_header(c.context, line, static_cast<std::int64_t>(size)) == 0 ? size : 0;
}

std::size_t on_body(char* bytes, std::size_t, std::size_t size, void* call) {
  const auto& c = *static_cast<const HttpCall*>(call);
  return c.on_body(c.context, bytes, static_cast<std::int64_t>(size)) == 0 ? size : 0;
}

int on_wait(void* call, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto& c = *static_cast<const HttpCall*>(call);
  return c.on_wait(c.context);
}

}  // namespace

extern "C" VITRINE_API int vitrine_http_version() { return vitrine::detail::kHttpVersion; }

extern "C" VITRINE_API int vitrine_http_perform(const HttpCall* call, char* message, std::int64_t message_size) {
  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
  CURL* curl = started == CURLE_OK ? curl_easy_init() : nullptr;
  curl_slist* headers = nullptr;
  for (std::int64_t i = 0; i < call->header_count; ++i) headers = curl_slist_append(headers, call->headers[i]);
  CURLcode result = curl != nullptr ? CURLE_OK : CURLE_FAILED_INIT;
  char detail[CURL_ERROR_SIZE] = "";
  if (curl != nullptr) {
    curl_easy_setopt(curl, CURLOPT_URL, call->url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_NOBODY, static_cast<long>(call->head));
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, static_cast<long>(call->timeout_s));
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, static_cast<long>(call->timeout_s));
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, call);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_wait);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, call);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    result = curl_easy_perform(curl);
    curl_easy_cleanup(curl);
  }
  curl_slist_free_all(headers);
  if (result == CURLE_OK) return 0;
  const char* text = detail[0] != '\0' ? detail : curl_easy_strerror(result);
  const auto size = std::min(std::strlen(text), static_cast<std::size_t>(message_size - 1));
  std::memcpy(message, text, size);
  message[size] = '\0';
  return 1;
}
