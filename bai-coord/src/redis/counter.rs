//! Rolling counters: one hash per key, one field per slice of time, on the server's clock.

use std::sync::LazyLock;
use std::time::Duration;

use ::redis::Script;
use async_trait::async_trait;
use bai_core::error::Result;
use bai_core::port::Counter;

use super::Redis;

/// Slices of a window. The one in progress comes on top, so that no hit is dropped too early.
const SLICES: u64 = 15;

/// Adds `ARGV[3]` hits to the slice in progress, drops slices that have left the window, and returns the sum. Windows of
/// different lengths on one key have fields of their own, named `length of a slice:number of the slice`.
static ROLL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local slice, slices, hits = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
        local time = redis.call('TIME')
        local current = math.floor((tonumber(time[1]) * 1000000 + tonumber(time[2])) / slice)
        if hits > 0 then
            redis.call('HINCRBY', KEYS[1], string.format('%.0f:%.0f', slice, current), hits)
            local ttl = math.ceil(slice * (slices + 1) / 1000)
            if redis.call('PTTL', KEYS[1]) < ttl then redis.call('PEXPIRE', KEYS[1], ttl) end
        end
        local total = 0
        local fields = redis.call('HGETALL', KEYS[1])
        for i = 1, #fields, 2 do
            local length, number = string.match(fields[i], '^(%d+):(%d+)$')
            if tonumber(length) == slice then
                if tonumber(number) < current - slices then
                    redis.call('HDEL', KEYS[1], fields[i])
                else
                    total = total + tonumber(fields[i + 1])
                end
            end
        end
        return total
        ",
    )
});

#[async_trait]
impl Counter for Redis {
    async fn hit(&self, key: &str, window: Duration) -> Result<u64> {
        self.roll(key, window, 1).await
    }

    async fn peek(&self, key: &str, window: Duration) -> Result<u64> {
        self.roll(key, window, 0).await
    }

    async fn reset(&self, key: &str) -> Result<()> {
        let mut command = ::redis::cmd("DEL");
        command.arg(self.counter_key(key));
        self.shared.call(async |mut connection| command.exec_async(&mut connection).await).await
    }
}

impl Redis {
    fn counter_key(&self, key: &str) -> String {
        format!("{}:counter:{key}", self.options.prefix)
    }

    async fn roll(&self, key: &str, window: Duration, hits: u32) -> Result<u64> {
        let mut script = ROLL.prepare_invoke();
        script.key(self.counter_key(key)).arg(slice_of(window)).arg(SLICES).arg(hits);
        self.shared.call(async |mut connection| script.invoke_async(&mut connection).await).await
    }
}

/// Microseconds, at most what the script's numbers hold exactly.
fn slice_of(window: Duration) -> u64 {
    let longest = 1 << 48;
    u64::try_from(window.as_micros().div_ceil(SLICES.into())).unwrap_or(longest).clamp(1, longest)
}
