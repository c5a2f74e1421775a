// A picture's class in a screenful: example_classify PICTURE [MODEL [WEIGHTS]]
#include <cstdio>
#include <exception>

#include <vitrine/pipelines/classify.h>
#include <vitrine/pipelines/image.h>

int main(int argc, char** argv) try {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s PICTURE [MODEL [WEIGHTS]]\n", argv[0]);
    return 2;
  }
  vitrine::ModelOptions options;
  options.model = argc > 2 ? argv[2] : "nat_fashion";
  if (argc > 3) options.weights = argv[3];

  const vitrine::ImageClassifier classifier(options);
  const vitrine::Image picture = vitrine::read_image(argv[1]);
  const auto answers = classifier.classify({&picture, 1}, 3);  // a list a picture, best first
  for (const vitrine::Classification& c : answers.front()) std::printf("%5.1f%%  %s\n", 100 * c.score, c.label.c_str());
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
