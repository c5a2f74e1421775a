#include <vitrine/backbones/clip_text.h>

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>
#include <vitrine/weights/sources.h>

namespace vitrine {

using detail::require;

namespace {

// open_clip's names, whose query, key and value are one matrix, and whose projection is the transpose of ours.
constexpr NameRule kOpenClip[] = {
    {R"(token_embedding\.weight)", "embeddings.token_embedding.weight"},
    {R"(positional_embedding)", "embeddings.position_embedding.weight"},
    {R"(transformer\.resblocks\.(\d+)\.ln_([12])\.(.*))", "encoder.layers.$1.layer_norm$2.$3"},
    {R"(transformer\.resblocks\.(\d+)\.attn\.in_proj_(.*))", "encoder.layers.$1.self_attn.in_proj.$2"},
    {R"(transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.*))", "encoder.layers.$1.self_attn.out_proj.$2"},
    {R"(transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.*))", "encoder.layers.$1.mlp.fc1.$2"},
    {R"(transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.*))", "encoder.layers.$1.mlp.fc2.$2"},
    {R"(ln_final\.(.*))", "final_layer_norm.$1"},
    {R"(text_projection)", "text_projection.transposed"},
    {R"((text_projection\..*))", "$1"},
    {".*", ""},  // the tower of pictures, the scale of logits
};
constexpr NameMap kNames[] = {{"transformer.resblocks.0.ln_1.weight", kOpenClip}};

// Where the files of whole pipelines have their text encoders: by their number, and what stands before the names.
struct InPipeline {
  int index;
  std::string_view prefix;
};
constexpr InPipeline kInPipelines[] = {{0, "cond_stage_model.transformer."},         // Stable Diffusion 1
                                       {0, "cond_stage_model.model."},               // 2
                                       {0, "conditioner.embedders.0.transformer."},  // XL
                                       {0, "conditioner.embedders.0.model."},        // its refiner
                                       {1, "conditioner.embedders.1.model."}};

bool is_parameter(const Weights& w, std::string_view name) { return !w.source().is_open() && w.has(name); }

void validate(const ClipTextConfig& c) {
  constexpr std::int64_t kMost = 1 << 20;  // far above any model, and safe to multiply
  for (const auto& [value, what] : {std::pair(c.vocab_size, "vocab_size"),
                                    {c.hidden_size, "hidden_size"},
                                    {c.intermediate_size, "intermediate_size"},
                                    {c.projection_dim, "projection_dim"},
                                    {c.max_position_embeddings, "max_position_embeddings"},
                                    {c.num_hidden_layers, "num_hidden_layers"},
                                    {c.num_attention_heads, "num_attention_heads"}})
    detail::require_size(c.name, what, value, kMost);
  require(c.hidden_size % c.num_attention_heads == 0, c.name,
          fmt::format("hidden_size {} is not a multiple of num_attention_heads {}", c.hidden_size, c.num_attention_heads));
  require(c.layer_norm_eps >= 0 && c.layer_norm_eps < 1, c.name, "layer_norm_eps is out of range");
}

}  // namespace

ClipTextModel::Layer::Layer(const Weights& w, const ClipTextConfig& c)
    : num_heads(c.num_attention_heads),
      activation(detail::parse_hidden_act(c.name, "hidden_act", c.hidden_act)),
      layer_norm1(w / "layer_norm1", c.hidden_size, c.layer_norm_eps),
      layer_norm2(w / "layer_norm2", c.hidden_size, c.layer_norm_eps),
      qkv(is_parameter(w / "self_attn" / "in_proj", "weight")
              ? Linear(w / "self_attn" / "in_proj", c.hidden_size, 3 * c.hidden_size)
              : detail::stack_rows(w / "self_attn", {"q_proj", "k_proj", "v_proj"}, c.hidden_size, c.hidden_size, true)),
      out_proj(w / "self_attn" / "out_proj", c.hidden_size, c.hidden_size),
      fc1(w / "mlp" / "fc1", c.hidden_size, c.intermediate_size),
      fc2(w / "mlp" / "fc2", c.intermediate_size, c.hidden_size) {}

Tensor ClipTextModel::Layer::operator()(Tensor x, const Tensor& mask) const {
  const std::int64_t dim = x.size(2);
  const Tensor heads = qkv(layer_norm1(x)).unflatten(2, {3, num_heads, dim / num_heads});  // [B, T, 3, heads, D]
  const Tensor y = attention(heads.select(2, 0), heads.select(2, 1), heads.select(2, 2), {.is_causal = true, .mask = mask});
  x = out_proj(y.flatten(2, 3), {.residual = std::move(x)});
  const Tensor hidden = fc1(layer_norm2(x), {.activation = activation});
  return fc2(hidden, {.residual = std::move(x)});
}

ClipTextModel::ClipTextModel(const Weights& weights, ClipTextConfig config) : config_(std::move(config)) {
  validate(config_);
  const ClipTextConfig& c = config_;
  const bool open_clip = is_parameter(weights, kNames[0].marker);
  rename_parameters(weights, kNames);
  // Stable Diffusion 2 leaves the last layer out, which is in its files.
  if (open_clip) weights.ignore(fmt::format("encoder.layers.{}.", c.num_hidden_layers));
  const bool prefixed = weights.has("text_model.embeddings.token_embedding.weight");
  const Weights w = prefixed ? weights / "text_model" : weights, embeddings = w / "embeddings";
  token_embedding_ = detail::TokenEmbedding(embeddings / "token_embedding", c.vocab_size, c.hidden_size);
  position_embedding_ =
      (embeddings / "position_embedding").on_device("weight", {c.max_position_embeddings, c.hidden_size}, w.dtype());
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) layers_.emplace_back(w / "encoder" / "layers" / i, c);
  final_norm_ = LayerNorm(w / "final_layer_norm", c.hidden_size, c.layer_norm_eps);
  if (const Weights p = weights / "text_projection"; c.projection && is_parameter(p, "transposed"))
    text_projection_ = Linear(permute(p.get("transposed", {c.hidden_size, c.projection_dim}), std::array{1, 0}), {}, p.options());
  else if (c.projection)
    text_projection_ = Linear(p, c.hidden_size, c.projection_dim, {.bias = false});
  embeddings.ignore("position_ids");  // 0, 1, 2, ...
  for (const char* other : {"vision_model.", "visual_projection.", "logit_scale"}) weights.ignore(other);
  if (!c.projection) weights.ignore("text_projection.");
  weights.check(c.name);
  parameters_ = weights.parameters();
}

std::shared_ptr<const WeightSource> clip_in_pipeline(const std::shared_ptr<const WeightSource>& file, int index) {
  const std::vector<std::string> names = file->names();
  for (const InPipeline& place : kInPipelines) {
    const auto inside = [&](const std::string& name) { return name.starts_with(place.prefix); };
    if (place.index != index || std::none_of(names.begin(), names.end(), inside)) continue;
    std::string pattern;
    for (const char c : place.prefix) pattern += c == '.' ? std::string("\\.") : std::string(1, c);
    pattern += "(.*)";
    const NameRule rules[] = {{pattern, "$1"}, {".*", ""}};
    return renamed(file, rules);
  }
  return nullptr;
}

Tensor ClipTextModel::end_of_text(const Tensor& ids) const {
  const Tensor flat = ids.contiguous().to(DType::i64);
  const std::int64_t B = flat.size(0), T = flat.size(1);
  Tensor rows = Tensor::empty({B}, DType::i64);
  for (std::int64_t b = 0; b < B; ++b) {
    const std::int64_t *first = flat.data<std::int64_t>() + b * T, *last = first + T;
    const std::int64_t* end =
        config_.eos_token_id == 2 ? std::max_element(first, last) : std::find(first, last, config_.eos_token_id);
    rows.data<std::int64_t>()[b] =
        b * T + (end == last ? 0 : end - first);  // a text without end: its first token, as the original
  }
  return rows;
}

ClipTextModel::States ClipTextModel::forward(const Tensor& ids, const Tensor& attention_mask, std::int64_t skipped) const {
  const auto depth = static_cast<std::int64_t>(layers_.size());
  require(skipped >= 0 && skipped <= depth, config_.name,
          fmt::format("the state {} layers before the end of {} is asked for", skipped, depth));
  Tensor x = token_embedding_(ids, config_.name);  // [B, T, C]
  const std::int64_t T = ids.size(1);
  require(T > 0 && T <= config_.max_position_embeddings, config_.name,
          fmt::format("{} tokens a text, expected 1 to {}", T, config_.max_position_embeddings));
  const Tensor mask = detail::key_mask(attention_mask, ids.shape(), config_.name).to(x.device());
  add_(x, position_embedding_.slice(0, 0, T));
  States states;
  for (std::int64_t i = 0; i < depth; ++i) {
    if (i == depth - skipped) states.hidden_state = x;
    x = layers_[static_cast<std::size_t>(i)](std::move(x), mask);
  }
  if (skipped == 0) states.hidden_state = x;
  states.last_hidden_state = final_norm_(x);
  states.pooled = gather_rows(states.last_hidden_state.flatten(0, 1), end_of_text(ids));  // [B, C]
  if (text_projection_.defined()) states.pooled = text_projection_(states.pooled);
  return states;
}

ClipTextConfig parse_clip_text_config(const Arguments& arguments) {
  ClipTextConfig c;
  const auto found = arguments.find("architectures");
  c.projection = found != arguments.end() && found->second.find("\"CLIPTextModelWithProjection\"") != std::string::npos;
  if (c.projection) c.name = "CLIPTextModelWithProjection";
  detail::ArgumentReader reader(c.name, arguments);
  reader.get("vocab_size", c.vocab_size)
      .get("hidden_size", c.hidden_size)
      .get("intermediate_size", c.intermediate_size)
      .get("projection_dim", c.projection_dim)
      .get("num_hidden_layers", c.num_hidden_layers)
      .get("num_attention_heads", c.num_attention_heads)
      .get("max_position_embeddings", c.max_position_embeddings)
      .get("hidden_act", c.hidden_act)
      .get("layer_norm_eps", c.layer_norm_eps)
      .get("eos_token_id", c.eos_token_id);
  detail::ignore_transformers_keys(reader);
  reader.finish();
  return c;
}

}  // namespace vitrine
