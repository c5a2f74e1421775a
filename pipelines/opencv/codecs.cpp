// libvitrine_codecs.so: see codecs.h. No exception leaves it.
#include <vitrine/pipelines/opencv/codecs.h>

#include <climits>
#include <cstdio>
#include <exception>

#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>

namespace {

struct Refusal : std::exception {
  explicit Refusal(const char* why) : why(why) {}
  const char* what() const noexcept override { return why; }
  const char* why;
};

// The upper byte of 16-bit samples; BGR and BGRA become RGB.
template <typename Sample, int Shift>
void copy_pixels(const cv::Mat& picture, int channels, std::uint8_t* to) {
  const int stride = picture.channels();
  for (int y = 0; y < picture.rows; ++y) {
    const Sample* from = picture.ptr<Sample>(y);
    for (int x = 0; x < picture.cols; ++x, from += stride) {
      for (int c = channels - 1; c >= 0; --c) *to++ = static_cast<std::uint8_t>(from[c] >> Shift);
    }
  }
}

void decode(const std::uint8_t* data, std::int64_t size, void* context, vitrine::CodecsAllocate* allocate) {
  if (size > INT_MAX) throw Refusal("the file is too large");
  cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
  const cv::Mat file(1, static_cast<int>(size), CV_8U, const_cast<std::uint8_t*>(data));
  const cv::Mat picture = cv::imdecode(file, cv::IMREAD_UNCHANGED);
  if (picture.empty()) throw Refusal("damaged or truncated picture, or a kind that OpenCV does not read");
  const int channels = picture.channels() <= 2 ? 1 : 3;
  if (picture.depth() != CV_8U && picture.depth() != CV_16U) throw Refusal("its samples are not of 8 or 16 bits");
  std::uint8_t* to = allocate(context, picture.cols, picture.rows, channels);
  if (to == nullptr) throw Refusal("too many pixels, or no memory for them");
  if (picture.depth() == CV_8U) {
    copy_pixels<std::uint8_t, 0>(picture, channels, to);
  } else {
    copy_pixels<std::uint16_t, 8>(picture, channels, to);
  }
}

}  // namespace

extern "C" {

VITRINE_API int vitrine_codecs_version() { return vitrine::kCodecsVersion; }

VITRINE_API int vitrine_codecs_decode(const std::uint8_t* data, std::int64_t size, void* context,
                                      vitrine::CodecsAllocate* allocate, char* message, std::int64_t message_size) {
  try {
    decode(data, size, context, allocate);
    return 0;
  } catch (const cv::Exception& error) {  // its what() has several lines
    std::snprintf(message, static_cast<std::size_t>(message_size), "%s", error.err.c_str());
  } catch (const std::exception& error) {
    std::snprintf(message, static_cast<std::size_t>(message_size), "%s", error.what());
  }
  return 1;
}

}  // extern "C"
