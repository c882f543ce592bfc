# SPDX-License-Identifier: Apache-2.0
#
# What the programs in Ruby share: how they are called and how they check (see run).

require 'redis'

HOST, PORT, FEATURE = ARGV

def expect(got, wanted)
  raise "got #{got.inspect}, wanted #{wanted.inspect}" unless got == wanted
end

def expect_error(text, kind = Redis::CommandError)
  result = yield
rescue kind => e
  raise "got the error #{e.message}, wanted #{text}" unless e.message.include?(text)
else
  raise "got #{result.inspect}, wanted the error #{text}"
end

def wait_until(what, seconds = 20)
  finish = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
  until (result = yield)
    raise "not within #{seconds} s: #{what}" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > finish

    sleep 0.01
  end
  result
end

# Has the server stopped or started, or a node of the cluster fail.
def server(word)
  puts word
  $stdout.flush
  expect($stdin.gets&.chomp, { 'stop' => 'stopped', 'start' => 'started', 'fail' => 'failed' }[word])
end

# 500 times SET, GET and INCR in one pipeline.
def expect_pipeline(redis, prefix = '')
  replies = redis.pipelined do |batch|
    500.times do |i|
      batch.set("#{prefix}k#{i}", "v#{i}")
      batch.get("#{prefix}k#{i}")
      batch.incr("#{prefix}n")
    end
  end
  expect(replies, (0...500).flat_map { |i| ['OK', "v#{i}", i + 1] })
end

# The first thing another thread says; its failure is ours.
def in_thread(&block)
  Thread.new(&block).tap { |thread| thread.report_on_exception = false }
end

# features: a module of functions.
def main(features)
  raise "no such feature: #{FEATURE}" unless features.singleton_methods.include?(FEATURE.to_sym)

  features.public_send(FEATURE)
  puts "ok #{FEATURE}"
rescue StandardError => e
  puts "not ok #{FEATURE}: #{e.class}: #{e.message}"
  raise
end
