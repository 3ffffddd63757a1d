# A site's machines on Google Compute Engine: network, who may reach what, nodes, their volumes, load balancers, names.

provider "google" {
  project        = var.project
  region         = var.region
  default_labels = merge(var.labels, { ashlar_site = module.ports.site })
}

locals {
  bastion  = var.access == "bastion"
  gateways = cidrsubnet(var.network_cidr, 4, 0)

  # From where Google asks what stands behind a passthrough load balancer whether it lives (cloud.google.com/load-balancing/docs/health-check-concepts).
  probes = ["35.191.0.0/16", "209.85.152.0/22", "209.85.204.0/22"]

  # In front of which class a load balancer stands, and for which ports.
  balancers = { for class, balancer in {
    edge    = { wanted = var.edge_load_balancer, ports = [80, 443] }
    control = { wanted = var.api_load_balancer, ports = [module.ports.api_port] }
    } : class => balancer.ports if balancer.wanted && anytrue([for node in module.pools.nodes : contains(node.classes, class)])
  }
}

module "ports" {
  source = "../modules/ports"

  site_folder = var.site_folder
  bastion     = local.bastion
  network     = var.network_cidr
  gateways = merge(
    local.bastion ? { "the bastion" = local.gateways } : {},
    var.api_load_balancer ? { for network in local.probes : "health checks of the API's load balancer, ${network}" => network } : {},
  )
}

module "pools" {
  source = "../modules/pools"

  site  = module.ports.site
  zones = var.zones
  pools = var.pools
}

module "login" {
  source = "../modules/login"

  user            = var.user
  public_key_file = var.ssh_public_key
  site_folder     = var.site_folder
}

module "network" {
  source = "./modules/network"

  site     = module.ports.site
  region   = var.region
  gateways = local.gateways
  nodes    = cidrsubnet(var.network_cidr, 1, 1)
  nat      = local.bastion
}

module "security" {
  source = "./modules/security"

  site    = module.ports.site
  network = module.network.network
  rules   = module.ports.rules
  admin   = module.ports.admin
  bastion = local.bastion
}

module "bastion" {
  source = "./modules/bastion"
  count  = local.bastion ? 1 : 0

  site       = module.ports.site
  size       = var.bastion_size
  image      = var.image
  region     = var.region
  zone       = var.zones[0]
  subnetwork = module.network.gateway_subnetwork
  tags       = [module.security.tags["bastion"]]
  user       = module.login.user
  public_key = module.login.public_key
  user_data  = module.login.user_data
  kms_key    = var.kms_key
}

module "nodes" {
  source = "./modules/nodes"

  site           = module.ports.site
  nodes          = module.pools.nodes
  image          = var.image
  region         = var.region
  public         = !local.bastion
  subnetwork     = module.network.node_subnetwork
  tags           = module.security.tags
  user           = module.login.user
  public_key     = module.login.public_key
  user_data      = module.login.user_data
  kms_key        = var.kms_key
  control_spread = var.control_spread
}

module "volumes" {
  source = "./modules/volumes"

  volumes   = module.pools.volumes
  instances = module.nodes.names
  zones     = module.nodes.zones
  kms_key   = var.kms_key
  snapshot  = var.snapshot_volumes
}

module "load_balancer" {
  source   = "./modules/load_balancer"
  for_each = local.balancers

  name       = "${module.ports.site}-${each.key == "control" ? "api" : each.key}"
  region     = var.region
  zones      = var.zones
  network    = module.network.network
  subnetwork = module.network.node_subnetwork
  ports      = each.value
  nodes = { for name, node in module.pools.nodes : name => {
    instance   = module.nodes.names[name]
    zone       = module.nodes.zones[name]
    private_ip = module.nodes.private_ips[name]
  } if contains(node.classes, each.key) }
}

module "dns" {
  source = "./modules/dns"
  count  = var.dns_zone == null ? 0 : 1

  zone      = var.dns_zone
  domain    = module.ports.domain
  addresses = { for record, it in module.machines.records : record => it.addresses }
}

module "machines" {
  source = "../modules/machines"

  nodes          = module.pools.nodes
  ids            = module.nodes.ids
  private_ips    = module.nodes.private_ips
  public_ips     = module.nodes.public_ips
  zones          = module.nodes.zones
  region         = var.region
  user           = module.login.user
  devices        = module.volumes.devices
  bastion        = one(module.bastion[*].address)
  load_balancers = { for class, balancer in module.load_balancer : class => balancer.address }
}
