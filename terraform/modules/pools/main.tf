# Pools -> nodes. A node's name and zone follow from its number alone, so that another count never touches another node.

locals {
  # range() gives at most 1024 numbers.
  numbers = { for name, pool in var.pools : name => flatten([
    for thousand in range(ceil(pool.count / 1000)) : range(thousand * 1000 + 1, min(thousand * 1000 + 1000, pool.count) + 1)
  ]) }

  nodes = merge([for pool_name, pool in var.pools : {
    for number in local.numbers[pool_name] : "${var.site}-${pool_name}-${number}" => {
      name     = "${var.site}-${pool_name}-${number}"
      pool     = pool_name
      number   = number
      classes  = pool.classes
      size     = pool.size
      zone     = coalesce(pool.zones, var.zones)[(number - 1) % length(coalesce(pool.zones, var.zones))]
      labels   = pool.labels
      disk_gib = pool.disk_gib
      volumes  = pool.volumes
      public   = pool.public
      image    = pool.image
    }
  }]...)

  volumes = merge([for name, node in local.nodes : {
    for index, volume in node.volumes : "${name}/${volume.name}" => {
      node     = name
      name     = volume.name
      size_gib = volume.size_gib
      type     = volume.type
      zone     = node.zone
      position = index + 1
    }
  }]...)

  long = [for name in keys(local.nodes) : name if length(name) > 63]
}
