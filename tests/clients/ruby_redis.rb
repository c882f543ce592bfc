# SPDX-License-Identifier: Apache-2.0
#
# ruby-redis as it is out of the box: RESP2, one retry after a lost connection (see run).

require 'securerandom'
require_relative 'feature'

def open_redis(**options)
  Redis.new(host: HOST, port: PORT.to_i, **options)
end

module Features
  module_function

  def connect
    redis = open_redis
    expect(redis.ping, 'PONG')
    expect(redis.echo('hello'), 'hello')
    expect(redis.info.key?('redis_version'), true)
    expect(redis.connected?, true)
    expect(Redis.new(url: "redis://#{HOST}:#{PORT}/0").ping, 'PONG')
    expect(redis.quit, 'OK')
  end

  def get_set
    redis = open_redis
    expect(redis.get('missing'), nil)
    expect(redis.get('missing'), nil)
    expect(redis.set('k', 'one'), 'OK')
    expect(redis.get('k'), 'one')
    expect(redis.get('k'), 'one')
    expect(redis.set('k', 'two'), 'OK')
    expect(redis.get('k'), 'two')
    expect(redis.set('k', 'three', nx: true), false)
    expect(redis.set('k', 'three', get: true), 'two')
    expect(redis.get('k'), 'three')

    ["\0\r\n\xFF$*\0".b, '', 'x' * 300_000].each do |value|
      redis.set('bytes', value)
      expect(redis.get('bytes').b == value, true)
      expect(redis.get('bytes').b == value, true)
    end

    expect(redis.mset('a', 1, 'b', 2), 'OK')
    expect(redis.mget('a', 'missing', 'b'), ['1', nil, '2'])
    expect(redis.mapped_mget('a', 'b'), { 'a' => '1', 'b' => '2' })
    expect(redis.set('short', 'v', px: 50), 'OK')
    wait_until('expired') { redis.get('short').nil? }
    expect(redis.del('a', 'b', 'missing'), 2)
    expect(redis.mget('a', 'b'), [nil, nil])
  end

  def types
    redis = open_redis
    expect(redis.hset('hash', { 'f' => 1, 'g' => 2 }), 2)
    expect(redis.hgetall('hash'), { 'f' => '1', 'g' => '2' })
    expect(redis.hmget('hash', 'g', 'none'), ['2', nil])
    expect(redis.hgetall('missing'), {})
    expect(redis.rpush('list', %w[a b c]), 3)
    expect(redis.lrange('list', 0, -1), %w[a b c])
    expect(redis.lpop('list'), 'a')
    expect(redis.sadd('set', %w[x y x]), 2)
    expect(redis.smembers('set').sort, %w[x y])
    expect(redis.sismember('set', 'x'), true)
    expect(redis.zadd('zset', [[1.5, 'a'], [2, 'b']]), 2)
    expect(redis.zrange('zset', 0, -1, with_scores: true), [['a', 1.5], ['b', 2.0]])
    expect(redis.incrby('n', 41), 41)
    expect(redis.incr('n'), 42)
    expect(redis.get('n'), '42')
    expect(redis.incrbyfloat('n', 0.5), 42.5)
    expect(redis.get('n'), '42.5')
    expect(redis.xadd('stream', { 'f' => 'v' }, id: '1-1'), '1-1')
    expect(redis.xread('stream', '0'), { 'stream' => [['1-1', { 'f' => 'v' }]] })
    expect(redis.expire('list', 100), true)
    expect(redis.ttl('list') > 90, true)
    expect(redis.type('zset'), 'zset')
    expect_error('WRONGTYPE') { redis.get('list') }
  end

  def select
    redis = open_redis
    other = open_redis(db: 2, id: 'billing')
    redis.set('k', 'zero')
    other.set('k', 'two')
    expect(redis.get('k'), 'zero')
    expect(redis.get('k'), 'zero')
    expect(other.get('k'), 'two')
    expect(other.client(:getname), 'billing')
    expect(redis.select(2), 'OK')
    expect(redis.get('k'), 'two')
    expect(redis.select(0), 'OK')
    expect(redis.get('k'), 'zero')
  end

  def pipeline
    redis = open_redis
    expect_pipeline(redis)
    expect_error('WRONGTYPE') do
      redis.pipelined do |batch|
        batch.lpush('k0', 'x')
        batch.set('k1', 'after the error')
      end
    end
    expect(redis.get('k1'), 'after the error')
  end

  def transaction
    redis = open_redis
    redis.set('k', 'before')
    expect(redis.get('k'), 'before')
    replies = redis.multi do |batch|
      batch.set('k', 'a')
      batch.get('k')
      batch.rpush('l', [1, 2])
      batch.hset('h', 'f', 'v')
      batch.hgetall('h')
    end
    expect(replies, ['OK', 'a', 2, 1, { 'f' => 'v' }])
    expect(redis.get('k'), 'a')

    expect_error('not an integer') do
      redis.multi do |batch|
        batch.set('k', 'b')
        batch.incr('k')
      end
    end
    expect(redis.get('k'), 'b')

    expect_error('wrong number of arguments') do
      redis.multi do |batch|
        batch.set('k', 'c')
        batch.call('SET', 'k')
      end
    end
    expect(redis.get('k'), 'b')

    # Nothing is sent when the block fails.
    expect_error('my word', RuntimeError) do
      redis.multi do |batch|
        batch.set('k', 'd')
        raise 'my word'
      end
    end
    expect(redis.get('k'), 'b')
  end

  def watch_retry
    redis = open_redis
    rival = open_redis
    redis.set('n', 10)
    expect(redis.get('n'), '10')
    seen = []
    loop do
      done = redis.watch('n') do
        n = redis.get('n').to_i
        seen << n
        expect(rival.set('n', 20), 'OK') if seen.size == 1
        redis.multi { |batch| batch.set('n', n + 1) }
      end
      break if done
    end
    expect(seen, [10, 20])
    expect(rival.get('n'), '21')
    expect(redis.watch('n'), 'OK')
    expect(redis.unwatch, 'OK')
    rival.set('n', 30)
    expect(redis.multi { |batch| batch.get('n') }, ['30'])
  end

  def script
    redis = open_redis
    redis.set('k', 'old')
    expect(redis.get('k'), 'old')
    source = "-- #{SecureRandom.uuid}
      local old = redis.call('GET', KEYS[1])
      redis.call('SET', KEYS[1], ARGV[1])
      return {old, #ARGV, redis.call('GET', KEYS[1])}"
    sha = Digest::SHA1.hexdigest(source)
    expect_error('NOSCRIPT') { redis.evalsha(sha, keys: ['k'], argv: ['new']) }
    expect(redis.get('k'), 'old')
    expect(redis.eval(source, keys: ['k'], argv: ['new']), ['old', 1, 'new'])
    expect(redis.get('k'), 'new')
    expect(redis.evalsha(sha, keys: ['k'], argv: ['newer']), ['new', 1, 'newer'])
    expect(redis.get('k'), 'newer')
    adder = redis.script(:load, "return redis.call('INCRBY', KEYS[1], ARGV[1])")
    expect(redis.script(:exists, [adder, 'f' * 40]), [true, false])
    expect(redis.evalsha(adder, ['n'], [5]), 5)
    expect(redis.get('n'), '5')
    expect_error('my word') { redis.eval("return redis.error_reply('ERR my word')") }
  end

  def pubsub
    redis = open_redis
    subscriber = open_redis
    subscriber.set('k', 'v')
    seen = []
    thread = in_thread do
      subscriber.subscribe('news', 'weather') do |on|
        on.subscribe { |channel, count| seen << ['subscribe', channel, count] }
        on.message do |channel, message|
          seen << [channel, message]
          subscriber.unsubscribe if message == 'end'
        end
        on.unsubscribe { |channel, count| seen << ['unsubscribe', channel, count] }
      end
      subscriber.get('k') # out of the subscription: serves commands again
    end
    wait_until('subscribed') { redis.pubsub(:numsub, 'weather') == ['weather', 1] }
    expect(redis.publish('news', 'one'), 1)
    expect(redis.publish('nobody', 'two'), 0)
    expect(redis.publish('weather', 'end'), 1)
    expect(thread.value, 'v')
    expect(seen[0, 4], [['subscribe', 'news', 1], ['subscribe', 'weather', 2], %w[news one],
                        %w[weather end]])
    expect(seen[4..].map(&:first), %w[unsubscribe unsubscribe])
    expect(seen.last.last, 0)
    expect(redis.publish('news', 'three'), 0)

    thread = in_thread do
      heard = nil
      subscriber.psubscribe('log.*') do |on|
        on.pmessage do |pattern, channel, message|
          heard = [pattern, channel, message]
          subscriber.punsubscribe('log.*')
        end
      end
      heard
    end
    wait_until('somebody hears') { redis.publish('log.app', 'four') == 1 }
    expect(thread.value, ['log.*', 'log.app', 'four'])

    expect_error('', Redis::TimeoutError) { subscriber.subscribe_with_timeout(0.2, 'news') { nil } }
    subscriber.close
  end

  def blocking_pop
    redis = open_redis
    worker = open_redis
    worker.set('k', 'v')
    job = in_thread { worker.blpop('jobs', 'more', timeout: 20) }
    wait_until('blocked') { redis.info('clients')['blocked_clients'] == '1' }
    expect(redis.get('k'), 'v')
    expect(redis.rpush('more', 'job'), 1)
    expect(job.value, %w[more job])
    expect(worker.get('k'), 'v')
    moved = in_thread { worker.blmove('jobs', 'done', 'LEFT', 'RIGHT', timeout: 0) }
    wait_until('blocked') { redis.info('clients')['blocked_clients'] == '1' }
    expect(redis.lpush('jobs', 'second'), 1)
    expect(moved.value, 'second')
    expect(redis.lrange('done', 0, -1), ['second'])
    expect(worker.brpop('jobs', timeout: 0.1), nil)
    expect(worker.get('k'), 'v')
  end

  def scan
    redis = open_redis
    wanted = (0...1000).map { |i| "user:#{i}" }.sort
    redis.pipelined do |batch|
      batch.set('other', 'v')
      wanted.each do |key|
        batch.set(key, 'v')
        batch.hset('hash', key, 'v')
        batch.sadd('set', [key])
      end
    end
    expect(redis.scan_each(match: 'user:*', count: 100).to_a.uniq.sort, wanted)
    expect(redis.sscan_each('set').to_a.uniq.sort, wanted)
    expect(redis.hscan_each('hash').to_a.uniq.sort, wanted.map { |key| [key, 'v'] })
  end

  def reconnect
    redis = open_redis
    expect(redis.set('k', 'kept'), 'OK')
    expect(redis.get('k'), 'kept')
    server('stop')
    expect_error('', Redis::CannotConnectError) { redis.get('k') }
    server('start')
    expect(redis.get('k'), 'kept')
    expect(redis.incr('n'), 1)
    server('stop')
    server('start')
    expect(redis.incr('n'), 2) # tried again: no error
    expect(redis.set('k', 'again'), 'OK')
    expect(redis.get('k'), 'again')
  end
end

main(Features)
