<?php
// SPDX-License-Identifier: Apache-2.0
//
// What the programs in PHP share: how they check (see run).

// Warnings and notices are failures.
set_error_handler(function (int $level, string $text) {
    throw new Exception("php: $text");
});

function expect(mixed $got, mixed $wanted): void
{
    if ($got !== $wanted) {
        throw new Exception('got ' . json_encode($got) . ', wanted ' . json_encode($wanted));
    }
}

function until(string $what, callable $condition, int $seconds = 20): mixed
{
    $end = microtime(true) + $seconds;
    while (!($result = $condition())) {
        if (microtime(true) > $end) {
            throw new Exception("not within $seconds s: $what");
        }
        usleep(10000);
    }
    return $result;
}

// Runs the feature of that name, or, in a second process that a feature has begun (a fourth argument), the
// function of that name.
function main(array $features): void
{
    global $argv;
    $feature = $argv[3];
    $is_second = isset($argv[4]);
    try {
        if ($is_second) {
            ($argv[4])();
            exit(0);
        }
        if (!in_array($feature, $features, true)) {
            throw new Exception("no such feature: $feature");
        }
        $feature();
    } catch (Throwable $e) {
        fwrite($is_second ? STDERR : STDOUT, "not ok $feature: {$e->getMessage()}\n");
        fwrite(STDERR, $e->getTraceAsString() . "\n");
        exit(1);
    }
    echo "ok $feature\n";
}

// Has the server stopped or started, or a node of the cluster fail.
function server(string $word): void
{
    echo "$word\n";
    expect(trim((string)fgets(STDIN)), ['stop' => 'stopped', 'start' => 'started', 'fail' => 'failed'][$word]);
}
