#include <catch.h>

#include <cmath>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/evaluate_generation.h>
#include <vitrine/weights/sources.h>

#include "pipelines/fixtures.h"

using namespace vitrine;

namespace {

FeatureStatistics statistics_of(const Tensor& x) {
  FeatureStatistics s;
  s.add(x);
  return s;
}

}  // namespace

TEST_CASE("statistics of features are those of all rows, however they came") {
  const Tensor x = synthetic_tensor("features", {20, 3});
  const FeatureStatistics all = statistics_of(x);
  FeatureStatistics parts;
  parts.add(x.slice(0, 0, 7).contiguous());
  parts.add(x.slice(0, 7, 20).contiguous());
  CHECK(parts.count() == 20);
  double mean = 0, square = 0;
  for (int i = 0; i < 20; ++i) mean += x.data<float>()[3 * i + 1] / 20.0;
  for (int i = 0; i < 20; ++i) square += std::pow(x.data<float>()[3 * i + 1] - mean, 2) / 19.0;
  CHECK(all.mean()[1] == Approx(mean));
  CHECK(all.covariance()[4] == Approx(square));
  for (std::size_t i = 0; i < 9; ++i) CHECK(parts.covariance()[i] == Approx(all.covariance()[i]));
  FeatureStatistics copy;
  copy.restore(all.count(), all.sums(), all.products());
  CHECK(frechet_distance(copy, all) < 1e-12);
  CHECK_THROWS_AS(copy.restore(3, {1, 2}, {1}), Error);
  CHECK_THROWS_AS(frechet_distance(all, statistics_of(synthetic_tensor("other", {9, 4}))), Error);
  CHECK_THROWS_AS(frechet_distance(all, statistics_of(x.slice(0, 0, 1).contiguous())), Error);
}

TEST_CASE("the Frechet distance of a moved, stretched and turned cloud is that of the formula") {
  const Tensor x = synthetic_tensor("cloud", {50, 2});
  const FeatureStatistics base = statistics_of(x);
  const auto map = [&](float a, float b, float c, float d, float shift) {
    Tensor y = Tensor::empty({50, 2});
    for (int i = 0; i < 50; ++i) {
      const float u = x.data<float>()[2 * i], v = x.data<float>()[2 * i + 1];
      y.data<float>()[2 * i] = a * u + b * v + shift;
      y.data<float>()[2 * i + 1] = c * u + d * v;
    }
    return statistics_of(y);
  };
  CHECK(frechet_distance(base, map(1, 0, 0, 1, 3)) == Approx(9).epsilon(1e-5));
  const std::vector<double> m = base.mean(), c = base.covariance();
  // Three times as large: (3 - 1)^2 of mean and variance.
  CHECK(frechet_distance(base, map(3, 0, 0, 3, 0)) == Approx(4 * (m[0] * m[0] + m[1] * m[1] + c[0] + c[3])).epsilon(1e-5));
  // In two dimensions tr(sqrt(A B)) = sqrt(tr(A B) + 2 sqrt(det A det B)).
  const FeatureStatistics turned = map(0.8f, -0.6f, 1.2f, 1.6f, 0);
  const std::vector<double> n = turned.mean(), e = turned.covariance();
  const double trace = c[0] * e[0] + 2 * c[1] * e[1] + c[3] * e[3],
               dets = (c[0] * c[3] - c[1] * c[1]) * (e[0] * e[3] - e[1] * e[1]);
  const double expected = std::pow(m[0] - n[0], 2) + std::pow(m[1] - n[1], 2) + c[0] + c[3] + e[0] + e[3] -
                          2 * std::sqrt(trace + 2 * std::sqrt(dets));
  CHECK(frechet_distance(base, turned) == Approx(expected).epsilon(1e-6));
  // A channel that never changes.
  CHECK(frechet_distance(base, map(1, 0, 0, 0, 0)) == Approx(m[1] * m[1] + c[3]).epsilon(1e-5));
}
