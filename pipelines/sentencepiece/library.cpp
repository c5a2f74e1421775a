// Finds and loads libvitrine_sentencepiece.so, and makes a model of its functions.
#include <array>
#include <utility>

#include <dlfcn.h>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/library.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/sentencepiece/sentencepiece.h>
#include <vitrine/pipelines/text/unigram.h>

namespace vitrine {
namespace {

// The functions, or the reason why there are none.
struct SentencePieceLibrary {
  const SentencePieceCalls* calls = nullptr;
  std::string reason;
};

SentencePieceLibrary load() {
  const detail::LoadedLibrary found = detail::load_beside("libvitrine_sentencepiece.so");
  if (found.handle == nullptr) return {nullptr, found.reason};
  const auto function = reinterpret_cast<SentencePieceCallsFunction*>(dlsym(found.handle, "vitrine_sentencepiece_calls"));
  const SentencePieceCalls* calls = function == nullptr ? nullptr : function();
  if (calls == nullptr || calls->version != kSentencePieceVersion)
    return {nullptr, "libvitrine_sentencepiece.so is of another version of Vitrine"};
  return {calls, {}};
}

class SentencePieceModel final : public detail::TokenModel {
 public:
  SentencePieceModel(const SentencePieceCalls& calls, std::string_view bytes, SentencePieceInfo& info) : calls_(calls) {
    std::array<char, 512> message{};
    model_ = calls_.open(bytes.data(), static_cast<std::int64_t>(bytes.size()), &info, message.data(),
                         static_cast<std::int64_t>(message.size()));
    if (model_ == nullptr) throw Error(fmt::format("SentencePiece does not read it: {}", detail::printable(message.data(), 300)));
    const auto take = [](void* context, std::int64_t, const char* text, std::int64_t size, bool is_control) {
      static_cast<std::vector<Piece>*>(context)->push_back({std::string(text, static_cast<std::size_t>(size)), is_control});
    };
    calls_.pieces(model_, &pieces_, take);
  }
  ~SentencePieceModel() override { calls_.close(model_); }
  SentencePieceModel(const SentencePieceModel&) = delete;
  SentencePieceModel& operator=(const SentencePieceModel&) = delete;

  struct Piece {
    std::string text;
    bool is_control;
  };
  const std::vector<Piece>& pieces() const { return pieces_; }

  void encode(std::string_view word, std::vector<detail::Token>& to) const override {
    std::array<char, 512> message{};
    const auto take = [](void* context, std::int64_t id, const char* text, std::int64_t size, bool) {
      static_cast<std::vector<detail::Token>*>(context)->push_back({id, std::string(text, static_cast<std::size_t>(size))});
    };
    if (calls_.encode(model_, word.data(), static_cast<std::int64_t>(word.size()), &to, take, message.data(),
                      static_cast<std::int64_t>(message.size())) != 0)
      throw Error(fmt::format("tokenizer: SentencePiece: {}", detail::printable(message.data(), 300)));
  }

  std::optional<std::int64_t> find(std::string_view token) const override {
    for (std::size_t id = 0; id < pieces_.size(); ++id)
      if (pieces_[id].text == token) return static_cast<std::int64_t>(id);
    return std::nullopt;
  }

  std::string token(std::int64_t id) const override {
    return id >= 0 && id < static_cast<std::int64_t>(pieces_.size()) ? pieces_[static_cast<std::size_t>(id)].text : std::string();
  }

  std::string decode(std::span<const detail::Token> tokens) const override {
    std::string text;
    for (const detail::Token& token : tokens) text += token.text;
    return detail::without_metaspace(text);
  }

 private:
  const SentencePieceCalls& calls_;
  void* model_ = nullptr;
  std::vector<Piece> pieces_;
};

}  // namespace

std::shared_ptr<const detail::TokenModel> open_sentencepiece(std::string_view bytes, SentencePieceInfo& info,
                                                             std::vector<detail::AddedToken>& controls) {
  static const SentencePieceLibrary library = load();
  if (library.calls == nullptr)
    throw Error(fmt::format("SentencePiece's library did not load ({}); use a tokenizer.json instead", library.reason));
  auto model = std::make_shared<const SentencePieceModel>(*library.calls, bytes, info);
  for (std::size_t id = 0; id < model->pieces().size(); ++id)
    if (model->pieces()[id].is_control || static_cast<std::int64_t>(id) == info.unk_id)
      controls.push_back({.content = model->pieces()[id].text, .id = static_cast<std::int64_t>(id)});
  return model;
}

}  // namespace vitrine
