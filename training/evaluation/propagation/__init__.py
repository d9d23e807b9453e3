"""Label propagation by the published protocols: DAVIS-2017 (J&F), VIP (mIoU), JHMDB (PCK)."""
