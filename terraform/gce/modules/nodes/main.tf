# Costs nothing and is there in any case: it can't be deleted while a node follows it.
resource "google_compute_resource_policy" "control" {
  name   = "${var.site}-control"
  region = var.region

  group_placement_policy {
    availability_domain_count = 8
  }
}

resource "google_compute_instance" "node" {
  for_each = var.nodes

  name                      = each.key
  machine_type              = each.value.size
  zone                      = each.value.zone
  tags                      = concat([var.tags["nodes"]], [for class in each.value.classes : var.tags[class]])
  resource_policies         = var.control_spread && contains(each.value.classes, "control") ? [google_compute_resource_policy.control.id] : []
  can_ip_forward            = false # pods travel inside VXLAN, from node to node
  allow_stopping_for_update = true
  deletion_protection       = false

  # What the inventory plugin ashlar.stack.cloud reads, for whom there is no state.
  labels = {
    ashlar_pool    = each.value.pool
    ashlar_classes = join("_", each.value.classes)
    ashlar_user    = var.user
  }

  boot_disk {
    auto_delete       = true
    kms_key_self_link = var.kms_key

    initialize_params {
      image = coalesce(each.value.image, var.image)
      size  = each.value.disk_gib
      type  = "pd-balanced"
    }
  }

  network_interface {
    subnetwork = var.subnetwork

    dynamic "access_config" {
      for_each = var.public || each.value.public ? ["public"] : []

      content {
        network_tier = "PREMIUM"
      }
    }
  }

  # No service_account: a node has no rights in the project.
  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }

  # Google's Debian has its guest agent, which reads ssh-keys, and no cloud-init, which reads user-data; Ubuntu has both.
  metadata = merge(length(each.value.labels) == 0 ? {} : { ashlar_labels = join(" ", [for key, value in each.value.labels : "${key}=${value}"]) }, {
    ssh-keys               = "${var.user}:${var.public_key}"
    user-data              = var.user_data
    block-project-ssh-keys = "true"
    enable-oslogin         = "false"
    serial-port-enable     = "false"
  })

  # What would make a running node anew is for new nodes only. To take it over on one node:
  # tofu apply -replace='module.nodes.google_compute_instance.node["<node>"]', after playbooks have drained it.
  # Data volumes are attached by resources of their own.
  lifecycle {
    ignore_changes = [boot_disk, attached_disk, zone, resource_policies]
  }
}
