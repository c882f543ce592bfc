# SPDX-License-Identifier: Apache-2.0
#
# ruby-redis's cluster client as it is out of the box: CLUSTER SLOTS, CLUSTER NODES and COMMAND (see run).

require 'securerandom'
require_relative 'feature'

KEYS = Array.new(500) { |i| "k#{i}" } # in some 500 slots

def open_cluster
  Redis.new(cluster: ["redis://#{HOST}:#{PORT}"])
end

module Features
  module_function

  def connect
    redis = open_cluster
    expect(redis.ping, 'PONG')
    expect(redis.cluster(:keyslot, 'k'), 7629)
    expect(redis.cluster(:info)['cluster_state'], 'ok')
    expect(redis.cluster(:nodes).length >= 1, true)
    redis.close
  end

  def get_set
    redis = open_cluster
    KEYS.each do |key|
      expect(redis.set(key, "v#{key}"), 'OK')
      expect(redis.get(key), "v#{key}")
    end
    expect(redis.hset('hash', { 'f' => 1, 'g' => 2 }), 2)
    expect(redis.hgetall('hash'), { 'f' => '1', 'g' => '2' })
    expect_error('WRONGTYPE') { redis.get('hash') }
    expect(redis.dbsize, KEYS.length + 1)
  end

  def pipeline
    expect_pipeline(open_cluster, '{p}')
  end

  def several_keys
    redis = open_cluster
    expect(redis.mset('{t}a', 1, '{t}b', 2), 'OK')
    expect(redis.mget('{t}a', '{t}missing', '{t}b'), ['1', nil, '2'])
    expect(redis.rename('{t}a', '{t}c'), 'OK')
    expect(redis.del('{t}b', '{t}c', '{t}a'), 2)
  end

  def transaction
    redis = open_cluster
    redis.set('{t}k', 'before')
    expect(redis.get('{t}k'), 'before')
    replies = redis.multi do |batch|
      batch.set('{t}k', 'a')
      batch.get('{t}k')
      batch.rpush('{t}l', [1, 2])
    end
    expect(replies, ['OK', 'a', 2])
    expect(redis.get('{t}k'), 'a')
  end

  def script
    redis = open_cluster
    source = "-- #{SecureRandom.uuid}
      local old = redis.call('GET', KEYS[1])
      redis.call('SET', KEYS[1], ARGV[1])
      return {old, redis.call('GET', KEYS[1])}"
    KEYS.first(20).each do |key|
      redis.set(key, 'old')
      expect(redis.get(key), 'old')
      expect(redis.eval(source, [key], ['new']), ['old', 'new'])
      expect(redis.get(key), 'new')
    end
  end

  def pubsub
    redis = open_cluster
    seen = []
    subscribed = Queue.new
    listener = in_thread do
      open_cluster.subscribe('news', 'weather') do |on|
        on.subscribe { |channel, _| subscribed << channel }
        on.message do |channel, message|
          seen << [channel, message]
          throw :done if message == 'end'
        end
      end
    rescue UncaughtThrowError
      nil
    end
    expect([subscribed.pop, subscribed.pop], %w[news weather])
    redis.publish('news', 'one')
    wait_until('a message') { seen.length == 1 }
    redis.publish('weather', 'end')
    listener.join(20)
    expect(seen, [%w[news one], %w[weather end]])
  end

  def scan
    redis = open_cluster
    KEYS.each { |key| redis.set(key, 'v') }
    expect(redis.scan_each(match: 'k*', count: 50).to_a.uniq.sort, KEYS.sort)
    expect(redis.keys('k*').sort, KEYS.sort)
  end

  # Every key can be read and written again while the client stays as it is.
  def node_fails
    redis = open_cluster
    KEYS.each { |key| redis.set(key, '1') }
    server('fail')
    wait_until('all can be written', 40) do
      KEYS.all? { |key| redis.set(key, '2') == 'OK' }
    rescue Redis::BaseError
      false
    end
    expect(KEYS.map { |key| redis.get(key) }, ['2'] * KEYS.length)
  end

  def reconnect
    redis = open_cluster
    expect(redis.set('k', 'kept'), 'OK')
    server('stop')
    server('start')
    wait_until('works again') do
      redis.get('k') == 'kept'
    rescue Redis::BaseError
      false
    end
    expect(redis.incr('n'), 1)
  end
end

main(Features)
