// libvitrine_sentencepiece.so: see sentencepiece.h. No exception leaves it.
#include <vitrine/pipelines/sentencepiece/sentencepiece.h>

#include <cstdio>
#include <exception>
#include <memory>

#include <sentencepiece_processor.h>

#include <vitrine/layers/export.h>

namespace {

using sentencepiece::SentencePieceProcessor;
using vitrine::SentencePieceInfo;
using vitrine::SentencePieceTake;

const SentencePieceProcessor& model_of(const void* model) { return *static_cast<const SentencePieceProcessor*>(model); }

void write(char* message, std::int64_t size, const char* text) {
  std::snprintf(message, static_cast<std::size_t>(size), "%s", text);
}

void* open(const char* bytes, std::int64_t size, SentencePieceInfo* info, char* message, std::int64_t message_size) {
  try {
    auto model = std::make_unique<SentencePieceProcessor>();
    const auto status = model->LoadFromSerializedProto({bytes, static_cast<std::size_t>(size)});
    if (status.ok()) {
      *info = {model->GetPieceSize(), model->unk_id(), model->eos_id(), model->pad_id()};
      return model.release();
    }
    write(message, message_size, status.error_message());
  } catch (const std::exception& error) {
    write(message, message_size, error.what());
  }
  return nullptr;
}

void close(void* model) { delete static_cast<SentencePieceProcessor*>(model); }

void pieces(const void* model, void* context, SentencePieceTake* take) {
  const SentencePieceProcessor& processor = model_of(model);
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    const std::string& piece = processor.IdToPiece(id);
    take(context, id, piece.data(), static_cast<std::int64_t>(piece.size()), processor.IsControl(id));
  }
}

int encode(const void* model, const char* text, std::int64_t size, void* context, SentencePieceTake* take, char* message,
           std::int64_t message_size) {
  try {
    sentencepiece::ImmutableSentencePieceText result;
    const auto status = model_of(model).Encode({text, static_cast<std::size_t>(size)}, result.mutable_proto());
    if (status.ok()) {
      for (std::size_t i = 0; i < result.pieces_size(); ++i) {
        const auto piece = result.pieces(static_cast<int>(i));
        take(context, piece.id(), piece.piece().data(), static_cast<std::int64_t>(piece.piece().size()), false);
      }
      return 0;
    }
    write(message, message_size, status.error_message());
  } catch (const std::exception& error) {
    write(message, message_size, error.what());
  }
  return 1;
}

constexpr vitrine::SentencePieceCalls kCalls{vitrine::kSentencePieceVersion, open, close, pieces, encode};

}  // namespace

extern "C" VITRINE_API const vitrine::SentencePieceCalls* vitrine_sentencepiece_calls() { return &kCalls; }
