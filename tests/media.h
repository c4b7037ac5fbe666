// Builds without FFmpeg (SANA_VIDEO=OFF) read and write no video file but .y4m.
#pragma once

#include <gtest/gtest.h>

#ifdef SANA_VIDEO
#define NEEDS_FFMPEG
#else
#define NEEDS_FFMPEG GTEST_SKIP() << "this build has no FFmpeg"
#endif
