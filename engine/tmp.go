package engine
const planSuffix = ".plan"
type ItemReport struct { Phase, Shard, Index uint32 }
